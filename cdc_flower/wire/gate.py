"""The gate: a few weights by which a device tells which of its samples the teacher would answer otherwise.

The cloud learns them (`cdc_flower.cloud.gate`) of what came up, and they go down with the update. A sample is
a handful of *features*, places in one table of weights: the ids of its question, alone and in pairs, each
hashed to one of `BUCKETS` places; how the device's answer begins, alone and with its question; and a place
for how unsure the device was. The weights of its features add up to the log odds that the teacher would
disagree. `docs/wire-format.md` has the bytes and the hash.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire.frame import FrameError

BUCKETS = 64
EDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)  # of the entropy [nats]
WEIGHTS = BUCKETS + len(EDGES) + 1
LAYOUT = 1
_HEAD = struct.Struct("<Be")  # layout, scale
BYTES = _HEAD.size + WEIGHTS
LARGEST = 16.0  # of a weight
STEP = float(np.float16(LARGEST / 127))

Weights = NDArray[np.float64]
"""(WEIGHTS,)"""


def _bucket(*values: int) -> int:
    found = 0
    for value in values:
        found = (found ^ ((value + 0x9E3779B9) & 0xFFFFFFFF)) * 2654435761 & 0xFFFFFFFF
        found ^= found >> 15
    return found % BUCKETS


@lru_cache(2**10)
def _of_question(ids: tuple[int, ...]) -> tuple[int, ...]:
    return (*(_bucket(1, i) for i in ids), *(_bucket(2, i, j) for i, j in pairwise(ids)))


def features(question: Sequence[int], answer: Sequence[int], entropy: float) -> list[int]:
    """The places of a sample's weights, each below `WEIGHTS`; a place may stand there twice."""
    start = answer[0] if len(answer) else 0
    first, last = (question[0], question[-1]) if len(question) else (0, 0)
    half = float(np.float16(min(entropy, 6e4)))  # what the cloud reads in a frame
    return [
        *_of_question(tuple(question)),
        _bucket(3, start),
        _bucket(4, first, last, start),
        _bucket(5, first, int(half < 0.1)),
        BUCKETS + int(np.searchsorted(EDGES, half)),
    ]


def log_odds(weights: Weights, samples: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """(B,) of samples, each by its features."""
    return np.array([weights[list(places)].sum() for places in samples])


def chance(weights: Weights, samples: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """(B,) that the teacher would answer otherwise than the device did."""
    return 1 / (1 + np.exp(-log_odds(weights, samples).clip(-30, 30)))


def pack(weights: Weights) -> bytes:
    """The gate as it goes down: `BYTES` long.

    Raises:
        ValueError: not (WEIGHTS,), or not finite.
    """
    if np.shape(weights) != (WEIGHTS,) or not np.isfinite(weights).all():
        raise ValueError(f"a gate has {WEIGHTS} finite weights")
    clipped = np.clip(weights, -LARGEST, LARGEST)
    scale = np.float16(np.abs(clipped).max() / 127)
    symbols = np.rint(clipped / scale).clip(-127, 127) if scale else np.zeros(WEIGHTS)
    return _HEAD.pack(LAYOUT, float(scale)) + symbols.astype(np.int8).tobytes()


def unpack(data: object) -> Weights:
    """The weights that `pack` wrote.

    Raises:
        FrameError: anything that `pack` would not have written.
    """
    if not isinstance(data, bytes) or len(data) != BYTES:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise FrameError(f"gate: {found}; allowed: {BYTES} bytes")
    layout, scale = _HEAD.unpack_from(data)
    if layout != LAYOUT or not 0 <= scale <= STEP:
        raise FrameError(f"gate: layout {layout}, scale {scale}; allowed: layout {LAYOUT}, scale 0 to {STEP}")
    symbols = np.frombuffer(data, np.int8, offset=_HEAD.size)
    if symbols.min() < -127:
        raise FrameError("gate: weight -128; allowed: -127 to 127")
    return symbols.astype(np.float64) * scale
