"""The symbols of an update at a step, and what they cost.

Sizes are computed from token counts; nothing is coded until the dead zone is nearly right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cdc_flower.downlink.candidates import Chunk, Significant
from cdc_flower.wire import coder_models

MAX_CLASSES = 15
_FEW = 8  # tensors of a chunk whose tokens are counted one by one
_CLASS_HEAD = 3.0  # bytes of a class: its number of symbols
_ROUNDING = 0.35, 0.5  # of magnitudes beyond a dead zone of any width


@dataclass(frozen=True, eq=False)
class Part:
    """The symbols of a chunk at one step.

    Attributes:
        where: (K,) places of the non-zero symbols.
        magnitude: (K,) int32 or int64, >= 1.
        ratio: (K,) magnitude over step.
        first, cuts: as in `Chunk`.
    """

    where: NDArray[np.integer]
    magnitude: NDArray[np.integer]
    ratio: NDArray[np.floating]
    first: int
    cuts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Symbols:
    """An update quantised at one step; the symbols themselves are computed anew where they are asked for.

    Attributes:
        found: the candidates.
        step: the common step.
        dead: magnitudes below this many steps are not sent.
        count: K, non-zero symbols.
        labels: (T,) int64, class of each tensor, 0 = all zero, else 1.. from dense to sparse.
        bits: size of everything that grows with K.
        fixed: bytes of tables and heads.
    """

    found: Significant
    step: float
    dead: float
    count: int
    labels: NDArray[np.int64]
    bits: float
    fixed: float

    def parts(self) -> Iterator[Part]:
        """The symbols, chunk by chunk."""
        return (_quantized(chunk, self.step, self.dead) for chunk in self.found.chunks)

    @cached_property
    def gain(self) -> float:
        """By how much the squared error is smaller than that of sending nothing."""
        gains = ((p.magnitude * (2 * p.ratio - p.magnitude)).sum(dtype=np.float64) for p in self.parts())
        return math.fsum(gains) * self.step**2


def _quantized(chunk: Chunk, step: float, dead: float) -> Part:
    """`floor(value / step + rho)`, at least 1, from `dead` steps on, 0 below; rho is 1 - dead, clipped."""
    ratio, rho = chunk.value / chunk.value.dtype.type(step), min(max(1 - dead, _ROUNDING[0]), _ROUNDING[1])
    where, cuts = chunk.where, chunk.cuts
    chosen = np.flatnonzero(ratio >= dead)
    if len(chosen) < len(ratio):
        where, ratio, cuts = where[chosen], ratio[chosen], np.searchsorted(chosen, cuts)
    if ratio.dtype == np.float32:
        magnitude = (ratio + np.float32(rho)).astype(np.int32)
    else:
        magnitude = np.minimum(ratio + rho, float(coder_models.MAX_VALUE)).astype(np.int64)
    return Part(where, np.maximum(magnitude, 1, out=magnitude), ratio, chunk.first, cuts)


def symbols(found: Significant, step: float, dead: float, labels: NDArray[np.int64] | None = None) -> Symbols:
    """The symbols at a step and what they cost.

    Args:
        found: candidates down to `dead * step` at least.
        step: > 0.
        dead: magnitudes from so many steps on are sent, as 1 at least, and smaller ones are not.
        labels: classes found at a dead zone nearby, to be kept.
    """
    rank, n = _groups(found, labels)
    counts, sums = np.zeros(len(rank), np.int64), np.zeros((n, 2))
    hist = np.zeros((n, 2, coder_models.MAX_TOKEN))
    last = -1
    for chunk in found.chunks:
        part = _quantized(chunk, step, dead)
        each = np.diff(part.cuts)
        if not len(part.where):
            continue
        gap = coder_models.tokens_of(_gaps(part, each, found.bounds, last))
        size = coder_models.tokens_of(part.magnitude - 1)
        last = int(part.where[-1])
        here = slice(part.first, part.first + len(each))
        counts[here] += each
        of = rank[here]
        if n == 1:
            hist[0, 0] += np.bincount(gap, minlength=coder_models.MAX_TOKEN)
            hist[0, 1] += np.bincount(size, minlength=coder_models.MAX_TOKEN)
            sums[0, 0] += part.magnitude.sum(dtype=np.float64)
        else:
            for k, token in enumerate((gap, size)):
                hist[:, k] += _by_group(token, of, part.cuts, n)
            live = np.flatnonzero(each)
            of_each = np.add.reduceat(part.magnitude, part.cuts[live], dtype=np.float64)
            sums[:, 0] += np.bincount(of[live], of_each, n)
    live = counts > 0
    sums[:, 1] = np.bincount(rank[live], np.diff(found.bounds)[live], n)
    merged, bits, fixed = _merged(hist, sums, fix=labels is not None)
    labels = np.where(live, merged[rank] + 1, 0)
    return Symbols(found, step, dead, int(counts.sum()), labels, bits, fixed)


def _by_group(
    token: NDArray[np.uint8], of: NDArray[np.int64], cuts: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """How often each token occurs in each of n groups (n, tokens); `of` and `cuts` are those of tensors."""
    if len(of) > _FEW:
        base = np.repeat((of * coder_models.MAX_TOKEN).astype(np.int16), np.diff(cuts))
        base += token
        return np.bincount(base, minlength=n * coder_models.MAX_TOKEN).reshape(n, -1)
    found = np.zeros((n, coder_models.MAX_TOKEN), np.int64)
    for group, a, b in zip(of.tolist(), cuts.tolist(), cuts[1:].tolist(), strict=False):
        if a < b:
            found[group] += np.bincount(token[a:b], minlength=coder_models.MAX_TOKEN)
    return found


def _groups(found: Significant, labels: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], int]:
    """The group (T,) of each tensor, from dense to sparse, and how many there are."""
    if labels is not None:
        return np.maximum(labels - 1, 0), max(int(labels.max(initial=0)), 1)
    live = np.flatnonzero(found.counts)
    order = live[np.argsort(-found.counts[live] / np.diff(found.bounds)[live], kind="stable")]
    n = max(min(len(order), MAX_CLASSES, 1 + int(found.counts.sum()) // 256), 1)
    rank = np.zeros(len(found.counts), np.int64)
    rank[order] = np.arange(len(order)) * n // max(len(order), 1)
    return rank, n


def _gaps(part: Part, counts: NDArray[np.int64], bounds: NDArray[np.int64], last: int) -> NDArray[np.integer]:
    """Zeros before each non-zero symbol within its tensor; `last` is the place of the symbol before them."""
    where = part.where
    out = np.empty_like(where)
    np.subtract(where[1:], where[:-1], out=out[1:])
    out -= 1
    live = np.flatnonzero(counts)
    first = part.cuts[live]
    out[first] = where[first] - np.maximum(bounds[part.first + live], last + 1).astype(where.dtype)
    return out


def _merged(
    hist: NDArray[np.float64], sums: NDArray[np.float64], fix: bool
) -> tuple[NDArray[np.int64], float, float]:
    """Runs of groups that share a model such that the whole is smallest.

    Args:
        hist: (G, 2, tokens) counts of gap and of magnitude tokens.
        sums: (G, 2) sum of the magnitudes, and elements.
        fix: keep the groups as they are.

    Returns:
        The class (G,) of each group; bits that grow with the symbols, bytes of tables and heads.
    """
    n = len(hist)
    used = np.flatnonzero(hist.sum(axis=(0, 1)))
    hist, widths = hist[:, :, used], coder_models.WIDTHS[used].astype(np.float64)
    if fix or n < 2:
        some = hist.sum(axis=(1, 2)) > 0
        costs = _cost(hist[some], sums[some], widths)
        return (np.cumsum(some) - some), float(costs[:, 0].sum()), float(costs[:, 1].sum()) / 8
    begin, end = np.triu_indices(n)
    upto = np.concatenate((np.zeros_like(hist[:1]), np.cumsum(hist, axis=0)))
    totals = np.concatenate((np.zeros_like(sums[:1]), np.cumsum(sums, axis=0)))
    costs = _cost(upto[end + 1] - upto[begin], totals[end + 1] - totals[begin], widths)
    of = {(a, b): k for k, (a, b) in enumerate(zip(begin.tolist(), end.tolist(), strict=True))}
    whole = costs.sum(axis=1).tolist()
    best, back = [0.0], []  # the smallest size of the first groups, and where their last run begins
    for b in range(n):
        size, a = min((best[a] + whole[of[a, b]], a) for a in range(b + 1))
        best.append(size)
        back.append(a)
    labels, chosen, b = np.zeros(n, np.int64), [], n - 1
    while b >= 0:
        chosen.append(of[back[b], b])
        labels[: back[b]] -= 1
        b = back[b] - 1
    return labels - labels[0], float(costs[chosen, 0].sum()), float(costs[chosen, 1].sum()) / 8


def _cost(
    hist: NDArray[np.float64], sums: NDArray[np.float64], widths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(G, 2): bits of the symbols of classes, and of their models and heads.

    Args:
        hist: (G, 2, tokens) counts of gap and of magnitude tokens.
        sums: (G, 2) sum of the magnitudes, and elements.
        widths: (tokens,) raw bits of each token.
    """
    n = hist.sum(axis=2)
    coded = hist @ widths - _xlogx(hist).sum(axis=2) + _xlogx(n)
    table = 8.0 * (2.0 + np.count_nonzero(hist, axis=2))
    trials = np.stack((np.maximum(sums[:, 1], n[:, 0]), sums[:, 0]), axis=1)  # of a coin with n heads
    geometric = _xlogx(trials) - _xlogx(n) - _xlogx(trials - n)
    use = geometric + 8.0 < coded + table
    bits = np.where(use, geometric, coded).sum(axis=1) + n[:, 0]  # and the signs
    return np.stack((bits, np.where(use, 8.0, table).sum(axis=1) + 8 * _CLASS_HEAD), axis=1)


def _xlogx(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.log2(np.maximum(x, 1.0))
