"""What arrives of pictures is what the uplink's own code sends of them."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from experiments.probes import sent


@pytest.fixture(scope="module")
def pictures(settings, shared):
    config = parse(settings)
    world = load_world(config, shared)
    rows = sent.one_row_a_picture(world.train, 5, 0, "some")
    return sent.seen(rows, world.pack.train_images, shared, config.uplink, config.pair, 0), config.uplink


def test_each_picture_is_there_once_with_the_tokens_of_its_tower(pictures, shared):
    of, _ = pictures
    assert of.rows["image_id"].is_unique
    assert of.tokens.shape == (5, shared.n_tokens, shared.width)
    assert of.pixels.shape == (5, shared.side, shared.side, 3)
    assert of.scores.shape == (5, shared.n_tokens)


def test_the_tokens_of_highest_score_arrive_and_no_others(pictures, shared):
    of, up = pictures
    got = sent.received(of, shared, sent.protected(up, 4, 16, 0.0, 0.0), 0, "x")
    for scores, there in zip(of.scores, got.there, strict=True):
        assert set(np.flatnonzero(there)) == set(np.argsort(-scores, kind="stable")[:4])
    np.testing.assert_array_equal(got.tokens[got.there], of.tokens[got.there])
    assert (got.tokens[~got.there] == 0).all()


def test_an_arm_is_clipped_and_noised_anew_for_each_picture(pictures, shared):
    of, up = pictures
    clip = sent.usual_distance(of, shared)
    clipped = sent.received(of, shared, sent.protected(up, 0, 16, clip, 0.0), 0, "x")
    mean = np.float32(0) if shared.transform is None else shared.transform.mean
    lengths = np.linalg.norm(clipped.tokens - mean, axis=-1)
    assert lengths.max() <= clip * 1.01
    assert np.median(lengths) >= clip * 0.98
    noised = sent.received(of, shared, sent.protected(up, 0, 16, clip, 0.5), 0, "x")
    noise = (noised.tokens - clipped.tokens) / clip
    assert noise.std() == pytest.approx(0.5, rel=0.05)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
