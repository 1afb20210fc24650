"""Things of the generated clips: how they move, where they are put, and how they are drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from cdc_flower.data.clip_users import INKS, SHAPES, STEPS, Profile
from cdc_flower.data.scenes import COLOURS, sprite

SIDE, FRAMES, FPS, RADIUS = 32, 8, 4.0, 4
APART, MET = 9.5, 4.0  # pixels between middles: never nearer is no meeting, once nearer is one
SPEEDS = {"slow": 1.3, "fast": 2.8}  # pixels a frame
GROUND = {"day": (246, 244, 238), "night": (28, 32, 48), "outline": (205, 222, 235)}
STILL = 0.12  # share of clips in which nothing moves
TRIES = 24  # places that are tried for a thing before a clip begins anew


class Thing(NamedTuple):
    """One thing of a clip; `way` is "" where it stays, `at` (FRAMES, 2) its middle x, y in pixels."""

    shape: str
    colour: str
    way: str
    start: int
    speed: str
    at: np.ndarray


def _path(way: str, start: int, speed: str, wave: bool) -> np.ndarray:
    """Where a thing is, beside where it begins: (FRAMES, 2)."""
    if not way:
        return np.zeros((FRAMES, 2))
    gone = np.clip(np.arange(FRAMES) - start, 0, None)
    step = np.array(STEPS[way])
    swing = 1.6 * np.sin(gone * np.pi / 2)[:, None] * step[::-1] if wave else 0.0
    return gone[:, None] * SPEEDS[speed] * step + swing


def distances(at: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances of two things, of places (..., 2)."""
    return np.sqrt(np.square(at - other).sum(-1))


def _put(
    path: np.ndarray, others: Sequence[Thing], partner: int | None, rng: np.random.Generator
) -> np.ndarray | None:
    """A place for a thing with that path: in the picture, and meeting nobody but the partner."""
    low, high = RADIUS - path.min(0), SIDE - 1 - RADIUS - path.max(0)
    begin = low + rng.random((TRIES, 2)) * (high - low)
    if partner is not None:
        when = rng.integers(3, FRAMES, TRIES)
        begin = others[partner].at[when] + rng.uniform(-2, 2, (TRIES, 2)) - path[when]
    at = np.rint(begin[:, None] + path).astype(int)  # (TRIES, FRAMES, 2)
    good = (at.min((1, 2)) >= RADIUS) & (at.max((1, 2)) <= SIDE - 1 - RADIUS)
    for i, other in enumerate(others):
        apart = distances(at, other.at)
        good &= apart[:, 0] >= APART
        good &= apart.min(1) <= MET if i == partner else apart.min(1) >= APART
    return at[good.argmax()] if good.any() else None


def things_of(own: Profile, rng: np.random.Generator) -> list[Thing]:
    """Two or three things that stay or move; in half of the clips two of them meet."""
    while True:
        count = int(rng.integers(2, 4))
        moving = int(rng.choice(count + 1, p=moving_chances(count)))
        shapes = rng.choice(len(SHAPES), count, replace=False, p=own.shapes)
        colours = rng.choice(len(INKS), count, replace=False, p=own.colours)
        late = rng.permutation(count) % 2
        things: list[Thing] = []
        meet = moving > 0 and rng.random() < 0.6
        for i in range(count):
            way = list(STEPS)[int(rng.choice(4, p=own.directions))] if i < moving else ""
            start = int(late[i] * 3 + rng.integers(2))
            speed = "fast" if rng.random() < 0.5 else "slow"
            path = _path(way, start, speed, rng.random() < 0.4)
            at = _put(path, things, 0 if meet and i == 1 else None, rng)
            if at is None:
                break
            things.append(Thing(list(SHAPES)[shapes[i]], INKS[colours[i]], way, start, speed, at))
        else:
            return [things[i] for i in rng.permutation(count)]


def moving_chances(count: int) -> np.ndarray:
    """Of none, one, ... all of so many things moving."""
    return np.array([STILL, *[(1 - STILL) / count] * count])


def _cover(thing: Thing, style: str) -> np.ndarray:
    """Of a thing's sprite, in 0..1."""
    cover = sprite(SHAPES[thing.shape], RADIUS)
    if style == "outline":
        cover = cover.copy()
        cover[2:-2, 2:-2] -= 0.6 * sprite(SHAPES[thing.shape], RADIUS - 2)
    return np.clip(cover, 0, 1)[..., None]


def draw(things: Sequence[Thing], style: str, rng: np.random.Generator) -> tuple[bytes, ...]:
    """The frames of a clip, each a PNG."""
    frames = np.asarray(GROUND[style], np.float32) + rng.normal(0, 1.5, (FRAMES, SIDE, SIDE, 1)).astype(
        np.float32
    )
    for thing in things:
        cover, ink = _cover(thing, style), np.asarray(COLOURS[thing.colour], np.float32)
        for canvas, (x, y) in zip(frames, thing.at.tolist(), strict=True):
            window = canvas[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1]
            window += cover * (ink - window)
    return tuple(_png(frame) for frame in np.clip(frames, 0, 255).astype(np.uint8))


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
