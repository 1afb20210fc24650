"""The codec `dyadic`: quantiser, tensor classes, entropy coder, and a dead zone that fills a byte budget.

Values are multiples of a step that is a power of two, so updates add up without rounding, and the difference
of any two versions is a table of small integers (`encode_exact`): a device that was away gets one such table
instead of every update it missed. What is below the dead zone is not sent, and the rest costs about its
information content: selection and quantisation of an update in one act (Sullivan 1996,
doi:10.1109/18.532878).

Tensors of like density share one model (a class), chosen by merging neighbours while that saves bytes; inside
a class the non-zero symbols are coded as gaps, magnitudes and signs, which loses nothing against coding every
zero and takes time for the non-zero ones alone. Step and dead zone are found by `search.py`. Layout of the
payload: `docs/wire-format.md`. 7-8 times smaller than top-k with fp16 values and 32-bit indices at equal
error.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdc_flower.downlink.candidates import blocks, collect
from cdc_flower.downlink.search import LEAST_DEAD, OCTAVES, Search
from cdc_flower.downlink.significant import MAX_CLASSES, Part, Symbols, symbols
from cdc_flower.wire import coder, columns, packing
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.packing import BitWriter

ALL_ZERO = b"\x00"
FINEST = 24  # exact differences are multiples of 2**-24
EVEN = (1, 2)  # the expected share of magnitudes 1
LARGEST = float(np.finfo(np.float32).max)
_HEAD = struct.Struct("<Bb")  # 1, octave of the step
_SENT = 1
_PART = 2**15  # symbols read together


def encode(delta: NDArray[np.float32], sizes: Sequence[int], budget: int) -> bytes:
    """The payload of at most `budget` bytes that leaves the least error found; coarser values cost less.

    Args:
        delta: (P,) float32, finite. Values below 1.2e-38 (denormal) count as zero.
        sizes: elements of each tensor, summing to P.
        budget: bytes, >= 1. Less is used where a relative error of 1e-4 costs less.
    """
    writer = _Writer(delta)
    return Search(delta, _bounds(sizes), writer.write, writer.around).within(budget) or ALL_ZERO


def _bounds(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(np.asarray(sizes, np.int64))))


def encode_exact(delta: NDArray[np.floating], sizes: Sequence[int]) -> bytes | None:
    """The payload that decodes to `delta` itself, as multiples of the largest power of two that divides it;
    None where a value is no float32, no multiple of 2**-24, or as large as 2**30 of that power.

    Args:
        delta: (P,), the difference of two adapters.
        sizes: elements of each tensor, summing to P.
    """
    every = 0
    for part in blocks(len(delta)):
        some = delta[part].astype(np.float64)
        units = np.ldexp(np.abs(some), FINEST)
        if not units.max() < 2.0**53 or (some.astype(np.float32) != some).any() or (units % 1).any():
            return None
        every |= int(np.bitwise_or.reduce(units.astype(np.int64)))
    if not every:
        return ALL_ZERO
    octave = (every & -every).bit_length() - 1 - FINEST  # of the lowest bit that is set in an element
    small = delta.astype(np.float32, copy=False)
    step, peak = math.ldexp(1.0, octave), max(float(small.max()), -float(small.min()))
    if peak >= 2.0**30 * step:
        return None
    found = collect(small, _bounds(sizes), LEAST_DEAD * step, peak, keep=False)
    return _Writer(small).write(symbols(found, step, LEAST_DEAD))


class _Writer:
    """Symbols of `delta` (P,) float32 to bytes. The class map is kept: a search asks for it at every turn."""

    def __init__(self, delta: NDArray[np.float32]):
        self._delta = delta
        self._map = b"", b""  # class labels and their column

    def around(self, plan: Symbols) -> int:
        """Bytes of head, class map, number of classes and of words, and rounding."""
        return _HEAD.size + len(self._class_map(plan.labels)) + 10

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
            heads.append(columns.varint(some.count))
            streams += [some.gaps, some.magnitudes]
            shares += [(some.count, size), EVEN]
            signs.extend(some.signs)
        return b"".join(
            (
                _HEAD.pack(_SENT, math.frexp(plan.step)[1] - 1),
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
        where, magnitude = part.where, part.magnitude
        if len(classes) == 1:
            cuts = [0, len(where)]
        else:
            cuts = np.cumsum(np.bincount(of, counts, len(classes) + 1)).astype(np.int64).tolist()
            order = np.argsort(of, kind="stable")
            counts, shift, begin = counts[order], shift[order], part.cuts[:-1][order]
            index = np.arange(len(where)) + np.repeat(begin - np.cumsum(counts) + counts, counts)
            where, magnitude = where[index], magnitude[index]
        places = where + np.repeat(shift, counts) if shift.any() else where
        negative = self._delta[where] < 0
        size = magnitude - 1
        for some, a, b in zip(classes, cuts, cuts[1:], strict=False):
            if b > a:
                some.add(places[a:b], size[a:b], negative[a:b])


class _ClassWriter:
    """The symbols of one class while they are gathered."""

    def __init__(self):
        self.gaps, self.magnitudes, self.signs = coder.Stream(), coder.Stream(), BitWriter()
        self.count, self._last = 0, -1

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
    """

    members: NDArray[np.int64]
    elements: int
    count: int
    gaps: coder.Reader
    sizes: coder.Reader
    signs: NDArray[np.uint8]
    first: int


def decode(payload: bytes, sizes: Sequence[int]) -> NDArray[np.float32]:
    """The vector (P,) float32 of a payload; both ends use this and nothing else.

    Raises:
        FrameError: bytes that `encode` cannot have written for tensors of these sizes.
    """
    counts = np.asarray(sizes, np.int64)
    out = np.zeros(int(counts.sum()), np.float32)
    if payload == ALL_ZERO:
        return out
    step, classes = read(payload, sizes)
    bounds = _bounds(sizes)
    for some in classes:
        members, ends = some.members, np.cumsum(counts[some.members])
        shift = bounds[members] - (ends - counts[members])  # from the row of the class to the vector
        last = -1
        for start in range(0, some.count, _PART):
            where = packing.places(some.gaps.take(_PART), last)
            last = int(where[-1])
            if last >= some.elements:
                raise FrameError(f"dyadic payload: position {last} in a class of {some.elements} elements")
            magnitude = some.sizes.take(_PART)
            magnitude += 1
            negative = packing.read_bits(some.signs, some.first + start, len(where)).view(bool)
            if len(members) < len(counts):
                where += np.repeat(shift, np.diff(np.searchsorted(where, ends), prepend=0))
            value = np.minimum(magnitude * step, LARGEST).astype(np.float32)
            out[where] = np.negative(value, out=value, where=negative)
    return out


def read(payload: bytes, sizes: Sequence[int]) -> tuple[float, list[Class]]:
    """The step and the classes of a payload that sends something.

    Raises:
        FrameError: as `decode`.
    """
    counts = np.asarray(sizes, np.int64)
    if len(payload) < _HEAD.size:
        raise FrameError("dyadic payload: cut short in its head")
    sent, octave = _HEAD.unpack_from(payload)
    if sent != _SENT or octave not in OCTAVES:
        raise FrameError(f"dyadic payload: begins with {sent}, step 2**{octave}; allowed: 1, 2**-126..2**127")
    at = _HEAD.size
    length, at = columns.read_varint(payload, at, "dyadic class map")
    labels = columns.unpack_column(payload[at : at + length], len(counts), 1, "dyadic class map")
    at += length
    heads, at = _class_heads(payload, at, labels, counts)
    n_signs = sum(k for k, _ in heads)
    after = at + (n_signs + 7) // 8
    if len(payload) < after:
        raise FrameError("dyadic payload: cut short in its signs")
    signs = packing.packed_row(payload[at:after], n_signs, "dyadic signs")
    shares = [s for k, n in heads for s in ((k, n), EVEN)]
    streams = coder.readers(memoryview(payload)[after:], [k for k, _ in heads for _ in range(2)], shares)
    classes, first = [], 0
    for label, (k, n) in enumerate(heads):
        classes.append(
            Class(
                np.flatnonzero(labels == label + 1),
                n,
                k,
                streams[2 * label],
                streams[2 * label + 1],
                signs,
                first,
            )
        )
        first += k
    return math.ldexp(1.0, octave), classes


def _class_heads(payload, at, labels, counts):
    """Per class its non-zero symbols and its elements."""
    if at >= len(payload):
        raise FrameError("dyadic payload: cut short before its classes")
    n, at = payload[at], at + 1
    if not 1 <= n <= MAX_CLASSES or labels.max(initial=0) > n:
        raise FrameError(
            f"dyadic payload: {n} classes, map up to {labels.max(initial=0)}; allowed: 1..{MAX_CLASSES}"
        )
    heads = []
    for label in range(1, n + 1):
        k, at = columns.read_varint(payload, at, "dyadic class")
        elements = int(counts[labels == label].sum())
        if not 1 <= k <= elements:
            raise FrameError(f"dyadic payload: {k} non-zero symbols in a class of {elements} elements")
        heads.append((k, elements))
    return heads, at
