"""Claims about things of the generated clips: where they are put, and what is drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cdc_flower.data import clip_things
from cdc_flower.data.clip_things import APART, FRAMES, MET, RADIUS, SIDE, distances, things_of
from cdc_flower.data.clip_users import STEPS, STYLES, profile


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(5)
    return [things_of(profile(user), rng) for user in range(150)]


def test_things_stay_in_the_picture_and_move_as_they_are_said_to(many):
    for things in many:
        assert (
            len({thing.shape for thing in things}) == len({thing.colour for thing in things}) == len(things)
        )
        for thing in things:
            assert thing.at.min() >= RADIUS
            assert thing.at.max() <= SIDE - 1 - RADIUS
            gone = thing.at[-1] - thing.at[0]
            assert (gone @ STEPS[thing.way] >= 3) if thing.way else not gone.any()
            assert not np.ptp(thing.at[: thing.start + 1], axis=0).any(), "it waits for its start"


def test_whether_two_things_meet_is_never_a_close_call(many):
    nearest = [distances(a.at, b.at).min() for things in many for a in things for b in things if a is not b]
    assert all(gap <= MET or gap >= APART for gap in nearest)
    assert 0.2 < np.mean(np.array(nearest) <= MET) < 0.6


def test_a_thing_is_drawn_where_it_is_in_its_colour_and_a_still_clip_does_not_move(many):
    things = next(things for things in many if not any(thing.way for thing in things))
    for style in STYLES:
        frames = clip_things.draw(things, style, np.random.default_rng(0))
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(data)), int) for data in frames])
        assert pixels.shape == (FRAMES, SIDE, SIDE, 3)
        assert np.abs(pixels - pixels[0]).max() < 20, "grain alone"
        ground = np.array(clip_things.GROUND[style])
        for thing in things:
            x, y = thing.at[0]
            here = pixels[0, y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1]
            assert np.abs(here - ground).max() > 60
