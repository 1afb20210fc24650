"""The dead-zone codec: quantiser, tensor classes, entropy coder, and one Lagrangian for a byte budget.

Tensors of like density share one model (a class), chosen by merging neighbours while that saves bytes; inside
a class the non-zero symbols are coded as gaps, magnitudes and signs, which loses nothing against coding every
zero and takes time for the non-zero ones alone. The step is found by `search.py`. Layout of the payload:
`docs/wire-format.md`.
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
from cdc_flower.downlink.significant import MAX_CLASSES, Symbols, gaps, survey
from cdc_flower.wire import coder, columns
from cdc_flower.wire.frame import FrameError

ALL_ZERO = b"\x00"
RELATIVE_ERROR_FLOOR = 1e-4
TABLES, GEOMETRIC = 1, 2  # schemes: which models of the coded integers are allowed
EVEN = (1, 2)  # the expected share of magnitudes 1
_HEAD = struct.Struct("<BBf")  # scheme, flags, step
_WEIGHTED = 1


def encode(delta: NDArray[np.float32], sizes: Sequence[int], budget: int,
           weights: Sequence[float] | None = None) -> bytes:
    """The payload of at most `budget` bytes with the smallest step found; coarser values cost less.

    Args:
        delta: (P,) float32, finite. Values below 1.2e-38 (denormal) count as zero.
        sizes: elements of each tensor, summing to P.
        budget: bytes, >= 1. Less is used where a relative error of 1e-4 costs less.
        weights: importance of the squared error of each tensor; None = equal.

    Raises:
        ValueError: weights that do not fit the tensors.
    """
    exponents = None if weights is None else quantizer.step_exponents(weights, len(sizes))
    peak, energy, nonzero = survey(delta)
    if peak < quantizer.SMALLEST_STEP:
        return ALL_ZERO
    factors = None if exponents is None else quantizer.step_factors(exponents)
    low = quantizer.floor_step(energy, nonzero, RELATIVE_ERROR_FLOOR)
    bounds = np.concatenate(([0], np.cumsum(np.asarray(sizes, np.int64))))
    writer = _Writer(delta, exponents)
    return Search(delta, bounds, factors, peak, low, writer.write, writer.around).within(budget) or ALL_ZERO


class _Writer:
    """Symbols to bytes. The class map is kept, because one search asks for it at every turn."""

    def __init__(self, delta: NDArray[np.float32], exponents: NDArray[np.int8] | None):
        self._delta, self._exponents = delta, exponents
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
        parts = [_HEAD.pack(GEOMETRIC, 0 if self._exponents is None else _WEIGHTED, plan.step)]
        if self._exponents is not None:
            parts.append(self._exponents.tobytes())
        heads, streams, shares, signs = [], [], [], []
        for label in range(1, int(plan.labels.max()) + 1):
            chosen, zeros, elements = _members(plan, label)
            magnitude = plan.magnitude[chosen]
            heads.append(columns.varint(len(magnitude))
                         + bytes(quantizer.offsets(plan.ratio[chosen], magnitude)))
            streams += [zeros, magnitude - 1]
            shares += [(len(magnitude), elements), EVEN]
            signs.append(self._delta[plan.where[chosen]] < 0)
        parts += [self._class_map(plan.labels), bytes((len(heads),)), *heads,
                  np.packbits(np.concatenate(signs)).tobytes(), coder.encode(streams, shares)]
        return b"".join(parts)


def _members(plan: Symbols, label: int):
    """Which symbols belong to a class, the zeros before each in the class's own row, and its elements."""
    member = plan.labels == label
    sizes, counts = np.diff(plan.bounds), np.diff(plan.cuts)
    if member.all():
        return slice(None), np.diff(plan.where, prepend=-1) - 1, int(plan.bounds[-1])
    chosen = np.repeat(member, counts)
    zeros = gaps(plan.where, plan.cuts, plan.bounds).astype(np.int64)
    live = np.flatnonzero(member & (counts > 0))
    row = np.cumsum(np.where(member, sizes, 0)) - np.where(member, sizes, 0)  # start of a tensor in the row
    after = row[live] - plan.bounds[live] + plan.where[plan.cuts[live + 1] - 1] + 1  # end of its last symbol
    zeros[plan.cuts[live]] += row[live] - np.concatenate(([0], after[:-1]))
    return chosen, zeros[chosen], int(sizes[member].sum())


@dataclass(frozen=True, eq=False)
class Class:
    """The tensors of a payload that share one model.

    Attributes:
        members: (M,) int64, the tensors.
        elements: of them all.
        gaps: (K,) int64, zeros before each non-zero symbol in the row of the members.
        magnitude: (K,) int64, >= 1.
        negative: (K,) bool.
        offset: the centroid offsets of magnitude 1 and of the larger ones.
    """

    members: NDArray[np.int64]
    elements: int
    gaps: NDArray[np.int64]
    magnitude: NDArray[np.int64]
    negative: NDArray[np.bool_]
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
    bounds = np.concatenate(([0], np.cumsum(counts)))
    uniform = len(steps) == 1
    for some in classes:
        where = some.gaps
        where += 1
        np.cumsum(where, out=where)
        where -= 1
        if where[-1] >= some.elements:
            raise FrameError(f"dead-zone payload: position {where[-1]} in a class of {some.elements} "
                             "elements")
        members, ends = some.members, np.cumsum(counts[some.members])
        each = np.diff(np.searchsorted(where, ends), prepend=0)
        if len(members) < len(counts):
            where += np.repeat(bounds[members] - (ends - counts[members]), each)
        spread = float(steps[0]) if uniform else np.repeat(steps[members], each)
        out[where] = quantizer.dequantize(some.magnitude, some.negative, some.offset, spread)
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
    packed = np.frombuffer(payload[at : at + (n_signs + 7) // 8], np.uint8)
    if len(packed) < (n_signs + 7) // 8:
        raise FrameError("dead-zone payload: cut short in its signs")
    negative = np.unpackbits(packed, count=n_signs).view(bool)
    shares = [s for k, n, _ in heads for s in ((k, n), EVEN)] if scheme == GEOMETRIC else None
    streams = coder.decode(payload[at + len(packed) :], [k for k, _, _ in heads for _ in range(2)], shares)
    ends = np.cumsum([k for k, _, _ in heads])
    classes = [
        Class(np.flatnonzero(labels == label), n, streams[2 * label - 2], streams[2 * label - 1] + 1,
              negative[ends[label - 1] - k : ends[label - 1]], offset)
        for label, (k, n, offset) in enumerate(heads, start=1)]
    return steps, classes


def _class_heads(payload, at, labels, counts):
    """Per class its non-zero symbols, its elements and its centroid offsets."""
    if at >= len(payload):
        raise FrameError("dead-zone payload: cut short before its classes")
    n, at = payload[at], at + 1
    if not 1 <= n <= MAX_CLASSES or labels.max(initial=0) > n:
        raise FrameError(f"dead-zone payload: {n} classes, map up to {labels.max(initial=0)}; "
                         f"allowed: 1..{MAX_CLASSES}")
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
