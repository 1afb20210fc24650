"""What of an update can be sent at all: the values at or above a dead zone.

A search looks at every weight a few times, in blocks that stay in the cache, and works on the candidates
alone in between. Candidates stand in chunks, so that nothing but they grows with the update: 8 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**16  # weights looked at together
_CHUNK = 2**15  # candidates worked on together, at least, but for the last
_EXACT = 2.0**20  # ratios up to here are rounded in float32


@dataclass(frozen=True, eq=False)
class Chunk:
    """Neighbouring elements of an update at or above a threshold, in order.

    Attributes:
        where: (K,) int32 or int64, places in the vector.
        value: (K,) float32 or float64, their magnitudes.
        first: the first tensor that has one of them.
        cuts: (M + 1,) int64, those of tensor `first + t` are `cuts[t]:cuts[t + 1]`; the last has some.
    """

    where: NDArray[np.integer]
    value: NDArray[np.floating]
    first: int
    cuts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Significant:
    """The elements of an update at or above a threshold.

    Attributes:
        chunks: of them, to be read as often as needed.
        counts: (T,) int64, of each tensor.
        bounds: (T + 1,) int64, the elements of tensor t are `bounds[t]:bounds[t + 1]`.
        threshold: values below it are missing.
    """

    chunks: Iterable[Chunk]
    counts: NDArray[np.int64]
    bounds: NDArray[np.int64]
    threshold: float


def blocks(size: int) -> Iterator[slice]:
    """Neighbouring parts of a vector of so many weights, small enough to stay in the cache."""
    return (slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK))


def survey(delta: NDArray[np.float32]) -> tuple[float, float, int]:
    """Largest magnitude, sum of squares and number of non-zero elements of (P,), in one pass."""
    peak, energy, nonzero = 0.0, 0.0, 0
    for part in blocks(len(delta)):
        block = delta[part]
        peak = max(peak, float(block.max()), -float(block.min()))
        wide = block.astype(np.float64)
        energy += float(np.dot(wide, wide))
        nonzero += int(np.count_nonzero(block))
    return peak, energy, nonzero


def collect(
    delta: NDArray[np.float32], bounds: NDArray[np.int64], threshold: float, peak: float, keep: bool = True
) -> Significant:
    """The elements whose magnitude is at least `threshold`.

    Args:
        delta: (P,) float32.
        bounds: (T + 1,), the elements of each tensor.
        threshold: > 0, of float32 range.
        peak: the largest magnitude of `delta`.
        keep: else the chunks are collected anew each time that they are asked for, of a `delta` that must not
            change, and take no memory in between.
    """
    place_type = np.int32 if len(delta) < 2**31 else np.int64
    kind = np.float32 if peak < _EXACT * threshold else np.float64

    def pieces() -> Iterator[tuple[NDArray[np.integer], NDArray[np.floating]]]:
        for part in blocks(len(delta)):
            block = np.abs(delta[part])
            index = np.flatnonzero(block >= block.dtype.type(threshold))
            value = block[index].astype(kind, copy=False)
            index += part.start
            yield index.astype(place_type), value

    anew = _Anew(lambda: _chunks(pieces(), bounds))
    return _significant(tuple(anew) if keep else anew, bounds, threshold)


def narrowed(found: Significant, threshold: float) -> Significant:
    """Those of the elements whose magnitude is at least a higher threshold."""
    chosen = ((c, np.flatnonzero(c.value >= c.value.dtype.type(threshold))) for c in found.chunks)
    fewer = _chunks(((c.where[some], c.value[some]) for c, some in chosen), found.bounds)
    return _significant(tuple(fewer), found.bounds, threshold)


class _Anew:
    """What a function yields, each time from the start."""

    def __init__(self, make: Callable[[], Iterator[Chunk]]):
        self._make = make

    def __iter__(self) -> Iterator[Chunk]:
        return self._make()


def _significant(chunks: Iterable[Chunk], bounds: NDArray[np.int64], threshold: float) -> Significant:
    counts = np.zeros(len(bounds) - 1, np.int64)
    for chunk in chunks:
        counts[chunk.first : chunk.first + len(chunk.cuts) - 1] += np.diff(chunk.cuts)
    return Significant(chunks, counts, bounds, threshold)


def _chunks(pieces, bounds: NDArray[np.int64]) -> Iterator[Chunk]:
    """Neighbouring pieces (places, magnitudes), put together."""
    places, values, waiting = [], [], 0
    for where, value in pieces:
        places.append(where)
        values.append(value)
        waiting += len(where)
        if waiting >= _CHUNK:
            yield _chunk(places, values, bounds)
            places, values, waiting = [], [], 0
    if waiting:
        yield _chunk(places, values, bounds)


def _chunk(places, values, bounds) -> Chunk:
    where = places[0] if len(places) == 1 else np.concatenate(places)
    value = values[0] if len(values) == 1 else np.concatenate(values)
    first, last = np.searchsorted(bounds, (where[0], where[-1]), side="right") - 1
    cuts = np.searchsorted(where, bounds[first : last + 2].astype(where.dtype))
    return Chunk(where, value, int(first), cuts)
