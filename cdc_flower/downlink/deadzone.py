"""The dead-zone codecs: quantiser, tensor classes, entropy coder, and one Lagrangian for a byte budget.

Tensors of like density share one model (a class), chosen by merging neighbours while that saves bytes; inside
a class the non-zero symbols are coded as gaps, magnitudes and signs, which loses nothing against coding every
zero and takes time for the non-zero ones alone. The step is found by `search.py`. Layout of the payload:
`docs/wire-format.md`.

`dyadic` takes steps that are powers of two and rebuilds values as multiples of them, so that updates add up
without rounding, and the difference of any two versions is a table of small integers (`encode_exact`): a
device that was away gets one such table instead of every update it missed.
Anchors: 7-8 times smaller than top-k with fp16 values and 32-bit indices at equal error.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdc_flower.downlink import quantizer
from cdc_flower.downlink.search import Search
from cdc_flower.downlink.significant import MAX_CLASSES, Part, Symbols, collect, survey, symbols
from cdc_flower.wire import coder, columns, packing
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.packing import BitWriter

ALL_ZERO = b"\x00"
RELATIVE_ERROR_FLOOR = 1e-4
TABLES, GEOMETRIC = 1, 2  # schemes: which models of the coded integers are allowed
FINEST = 24  # exact differences are multiples of 2**-24
EVEN = (1, 2)  # the expected share of magnitudes 1
_HEAD = struct.Struct("<BBf")  # scheme, flags, step
_WEIGHTED = 1
_PART = 2**15  # symbols read together


def encode(
    delta: NDArray[np.float32], sizes: Sequence[int], budget: int, weights: Sequence[float] | None = None
) -> bytes:
    """The payload of at most `budget` bytes with the smallest step found; coarser values cost less.

    Args:
        delta: (P,) float32, finite. Values below 1.2e-38 (denormal) count as zero.
        sizes: elements of each tensor, summing to P.
        budget: bytes, >= 1. Less is used where a relative error of 1e-4 costs less.
        weights: importance of the squared error of each tensor; None = equal.

    Raises:
        ValueError: weights that do not fit the tensors.
    """
    search = _search(delta, sizes, weights, dyadic=False)
    return ALL_ZERO if search is None else search.within(budget) or ALL_ZERO


def encode_dyadic(
    delta: NDArray[np.float32], sizes: Sequence[int], budget: int, weights: Sequence[float] | None = None
) -> bytes:
    """As `encode`, with steps that are powers of two and values that are multiples of them: the dead zone is
    what fills the budget.
    """
    search = _search(delta, sizes, weights, dyadic=True)
    return ALL_ZERO if search is None else search.within_dyadic(budget) or ALL_ZERO


def _search(delta, sizes, weights, dyadic: bool) -> Search | None:
    exponents = None if weights is None else quantizer.step_exponents(weights, len(sizes), 8 if dyadic else 1)
    peak, energy, nonzero = survey(delta)
    if peak < quantizer.SMALLEST_STEP:
        return None
    factors = None if exponents is None else quantizer.step_factors(exponents)
    low = quantizer.floor_step(energy, nonzero, RELATIVE_ERROR_FLOOR)
    writer = _Writer(delta, exponents, centred=not dyadic)
    return Search(delta, _bounds(sizes), factors, peak, low, writer.write, writer.around)


def _bounds(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(np.asarray(sizes, np.int64))))


def encode_exact(delta: NDArray[np.float64], sizes: Sequence[int]) -> bytes | None:
    """The payload that decodes to `delta` itself, as multiples of the largest powers of two that divide each
    tensor; None where a value is no float32, no multiple of 2**-24, or as large as 2**30 of the smallest one.

    Args:
        delta: (P,), the exact difference of two adapters.
        sizes: elements of each tensor, summing to P.
    """
    small, units = delta.astype(np.float32), np.ldexp(np.abs(delta), FINEST)
    if not units.max(initial=0) < 2.0**53 or (small != delta).any() or (np.rint(units) != units).any():
        return None
    bounds, bits = _bounds(sizes), units.astype(np.int64)
    live = np.flatnonzero(sizes)
    divisor = np.zeros(len(sizes), np.int64)
    if len(live):
        divisor[live] = np.bitwise_or.reduceat(bits, bounds[live])
    divisor &= -divisor  # the lowest bit that is set in one of the elements
    live = np.flatnonzero(divisor)
    if not len(live):
        return ALL_ZERO
    octave = np.zeros(len(sizes), np.int64)
    octave[live] = np.frexp(divisor[live].astype(np.float64))[1] - 1
    middle = int(octave[live].min()) + quantizer.MAX_EXPONENT // 8
    octave = np.where(divisor > 0, np.minimum(octave - middle, quantizer.MAX_EXPONENT // 8), 0)
    exponents = (8 * octave).astype(np.int8)
    step = math.ldexp(1.0, middle - FINEST)
    factors, peak = quantizer.step_factors(exponents), float(np.abs(small).max())
    if peak >= 2.0**30 * step * factors.min():
        return None
    found = collect(small, bounds, factors, 0.5 * step, peak)
    return _Writer(small, exponents, centred=False).write(symbols(found, step, 0.5))


class _Writer:
    """Symbols to bytes. The class map is kept, because one search asks for it at every turn.

    Args:
        delta: (P,) float32, what the symbols are of.
        exponents: (T,) of the tensors' steps, or None.
        centred: rebuild values at the centroids of their bins, not at multiples of the step.
    """

    def __init__(self, delta: NDArray[np.float32], exponents: NDArray[np.int8] | None, centred: bool):
        self._delta, self._exponents, self._centred = delta, exponents, centred
        self._map = b"", b""  # class labels and their column

    def around(self, plan: Symbols) -> int:
        """Bytes of head, exponents, class map, number of classes and of words, and rounding."""
        exponents = 0 if self._exponents is None else len(self._exponents)
        return _HEAD.size + exponents + len(self._class_map(plan.labels)) + 10

    def _class_map(self, labels: NDArray[np.int64]) -> bytes:
        key = labels.tobytes()
        if self._map[0] != key:
            column = columns.pack_column(labels, 1)
            self._map = key, columns.varint(len(column)) + column
        return self._map[1]

    def write(self, plan: Symbols) -> bytes:
        """The payload."""
        labels = plan.labels
        classes = [_ClassWriter() for _ in range(int(labels.max()))]
        sizes = np.diff(plan.found.bounds)
        order = np.argsort(labels, kind="stable")  # tensors, class by class
        row = np.cumsum(sizes[order])  # where each ends if they stood in this order
        ends = np.searchsorted(labels[order], np.arange(len(classes) + 1), side="right")
        starts = np.concatenate(([0], row))[ends[:-1]]  # of each class
        shift = np.empty_like(sizes)  # from a place in the vector to one in the row of its class
        shift[order] = row - sizes[order] - np.concatenate(([0], starts))[labels[order]]
        shift -= plan.found.bounds[:-1]
        for part in plan.parts():
            self._add(part, labels, shift, classes)
        elements = np.diff(np.concatenate(([0], row))[ends])
        heads, streams, shares, signs = [], [], [], BitWriter()
        for some, size in zip(classes, elements.tolist(), strict=True):
            offsets = some.offsets.pair() if self._centred else quantizer.NEUTRAL
            heads.append(columns.varint(some.count) + bytes(offsets))
            streams += [some.gaps, some.magnitudes]
            shares += [(some.count, size), EVEN]
            signs.extend(some.signs)
        exponents = b"" if self._exponents is None else self._exponents.tobytes()
        return b"".join(
            (
                _HEAD.pack(GEOMETRIC, _WEIGHTED if exponents else 0, plan.step),
                exponents,
                self._class_map(labels),
                bytes((len(heads),)),
                *heads,
                signs.tobytes(),
                coder.encode(streams, shares),
            )
        )

    def _add(
        self, part: Part, labels: NDArray[np.int64], shift: NDArray[np.int64], classes: list[_ClassWriter]
    ) -> None:
        """Give the symbols of a part to their classes."""
        tensors, counts = slice(part.first, part.first + len(part.cuts) - 1), np.diff(part.cuts)
        of, shift = labels[tensors], shift[tensors]
        where, magnitude, ratio = part.where, part.magnitude, part.ratio
        if len(classes) == 1:
            cuts = [0, len(where)]
        else:
            cuts = np.cumsum(np.bincount(of, counts, len(classes) + 1)).astype(np.int64).tolist()
            order = np.argsort(of, kind="stable")
            counts, shift, begin = counts[order], shift[order], part.cuts[:-1][order]
            index = np.arange(len(where)) + np.repeat(begin - np.cumsum(counts) + counts, counts)
            where, magnitude, ratio = where[index], magnitude[index], ratio[index]
        places = where + np.repeat(shift, counts) if shift.any() else where
        negative = self._delta[where] < 0
        size = magnitude - 1
        for some, a, b in zip(classes, cuts, cuts[1:], strict=False):
            if b > a:
                some.add(places[a:b], size[a:b], negative[a:b])
                if self._centred:
                    some.offsets.add(ratio[a:b], magnitude[a:b])


class _ClassWriter:
    """The symbols of one class while they are gathered."""

    def __init__(self):
        self.gaps, self.magnitudes, self.signs = coder.Stream(), coder.Stream(), BitWriter()
        self.offsets, self.count, self._last = quantizer.Offsets(), 0, -1

    def add(self, places: NDArray[np.integer], size: NDArray[np.integer], negative: NDArray[np.bool_]):
        """Append symbols at places in the row of the class; `size` = magnitude - 1."""
        self.gaps.add(packing.gaps(places, self._last))
        self.magnitudes.add(size)
        self.signs.add(negative)
        self.count, self._last = self.count + len(places), int(places[-1])


@dataclass(frozen=True, eq=False)
class Class:
    """The tensors of a payload that share one model.

    Attributes:
        members: (M,) int64, the tensors.
        elements: of them all.
        count: K, non-zero symbols.
        gaps: zeros before each non-zero symbol in the row of the members.
        sizes: magnitudes - 1.
        signs: packed row of bits, of all classes.
        first: where the signs of this class begin.
        offset: the centroid offsets of magnitude 1 and of the larger ones.
    """

    members: NDArray[np.int64]
    elements: int
    count: int
    gaps: coder.Reader
    sizes: coder.Reader
    signs: NDArray[np.uint8]
    first: int
    offset: tuple[int, int]


def decode(payload: bytes, sizes: Sequence[int]) -> NDArray[np.float32]:
    """The vector (P,) float32 of a payload; both ends use this and nothing else.

    Raises:
        FrameError: bytes that `encode` cannot have written for tensors of these sizes.
    """
    counts = np.asarray(sizes, np.int64)
    out = np.zeros(int(counts.sum()), np.float32)
    if payload == ALL_ZERO:
        return out
    steps, classes = read(payload, sizes)
    bounds = _bounds(sizes)
    for some in classes:
        members, ends = some.members, np.cumsum(counts[some.members])
        shift = bounds[members] - (ends - counts[members])  # from the row of the class to the vector
        last = -1
        for start in range(0, some.count, _PART):
            where = packing.places(some.gaps.take(_PART), last)
            last = int(where[-1])
            if last >= some.elements:
                raise FrameError(f"dead-zone payload: position {last} in a class of {some.elements} elements")
            magnitude = some.sizes.take(_PART)
            magnitude += 1
            negative = packing.read_bits(some.signs, some.first + start, len(where)).view(bool)
            spread = float(steps[0])
            if len(members) < len(counts) or len(steps) > 1:
                each = np.diff(np.searchsorted(where, ends), prepend=0)
                where += np.repeat(shift, each)
                if len(steps) > 1:
                    spread = np.repeat(steps[members], each)
            out[where] = quantizer.dequantize(magnitude, negative, some.offset, spread)
    return out


def read(payload: bytes, sizes: Sequence[int]) -> tuple[NDArray[np.float64], list[Class]]:
    """The steps, one for all tensors or one for each, and the classes of a payload that sends something.

    Raises:
        FrameError: as `decode`.
    """
    counts = np.asarray(sizes, np.int64)
    if len(payload) < _HEAD.size:
        raise FrameError("dead-zone payload: cut short in its head")
    scheme, flags, step = _HEAD.unpack_from(payload)
    if scheme not in (TABLES, GEOMETRIC) or flags > _WEIGHTED:
        raise FrameError(f"dead-zone payload: scheme {scheme}, flags {flags}; allowed: 1 or 2 and 0 or 1")
    if not (math.isfinite(step) and step > 0):
        raise FrameError(f"dead-zone payload: step {step} is not a positive finite number")
    at, steps = _HEAD.size, np.array([float(step)])
    if flags:
        if len(payload) < at + len(counts):
            raise FrameError("dead-zone payload: cut short in its exponents")
        exponents = np.frombuffer(payload, np.int8, len(counts), at)
        if np.abs(exponents.astype(np.int64)).max(initial=0) > quantizer.MAX_EXPONENT:
            raise FrameError(f"dead-zone payload: a step exponent beyond {quantizer.MAX_EXPONENT}")
        steps, at = float(step) * quantizer.step_factors(exponents), at + len(counts)
    length, at = columns.read_varint(payload, at, "dead-zone class map")
    labels = columns.unpack_column(payload[at : at + length], len(counts), 1, "dead-zone class map")
    at += length
    heads, at = _class_heads(payload, at, labels, counts)
    n_signs = sum(k for k, _, _ in heads)
    after = at + (n_signs + 7) // 8
    if len(payload) < after:
        raise FrameError("dead-zone payload: cut short in its signs")
    signs = packing.packed_row(payload[at:after], n_signs, "dead-zone signs")
    shares = [s for k, n, _ in heads for s in ((k, n), EVEN)] if scheme == GEOMETRIC else None
    streams = coder.readers(memoryview(payload)[after:], [k for k, _, _ in heads for _ in range(2)], shares)
    classes, first = [], 0
    for label, (k, n, offset) in enumerate(heads):
        classes.append(
            Class(
                np.flatnonzero(labels == label + 1),
                n,
                k,
                streams[2 * label],
                streams[2 * label + 1],
                signs,
                first,
                offset,
            )
        )
        first += k
    return steps, classes


def _class_heads(payload, at, labels, counts):
    """Per class its non-zero symbols, its elements and its centroid offsets."""
    if at >= len(payload):
        raise FrameError("dead-zone payload: cut short before its classes")
    n, at = payload[at], at + 1
    if not 1 <= n <= MAX_CLASSES or labels.max(initial=0) > n:
        raise FrameError(
            f"dead-zone payload: {n} classes, map up to {labels.max(initial=0)}; allowed: 1..{MAX_CLASSES}"
        )
    heads = []
    for label in range(1, n + 1):
        k, at = columns.read_varint(payload, at, "dead-zone class")
        elements = int(counts[labels == label].sum())
        if not 1 <= k <= elements:
            raise FrameError(f"dead-zone payload: {k} non-zero symbols in a class of {elements} elements")
        if len(payload) < at + 2:
            raise FrameError("dead-zone payload: cut short in a class")
        heads.append((k, elements, (payload[at], payload[at + 1])))
        at += 2
    return heads, at
