"""What of an update can be sent at all: the values near or above the dead zone, and their symbols at a step.

A search for the step looks at every weight once or twice, in blocks that stay in the cache, and works on the
candidates alone from then on. Before that it finds the neighbourhood of the step on a sample of whole blocks.
Sizes are computed from token counts; nothing is coded until the step is nearly right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire import coder

MAX_CLASSES = 15
SAMPLE_BLOCK = 2048  # neighbouring weights stay together in a sample, because gaps are between neighbours
_BLOCK = 2**16  # weights looked at together
_EXACT = 2.0**20  # ratios up to here are rounded in float32
_CLASS_HEAD = 5.0  # bytes of a class: number of symbols, two centroids


@dataclass(frozen=True, eq=False)
class Significant:
    """The elements of an update at or above a threshold, in order.

    Attributes:
        where: (K,) int32 or int64, places in the vector.
        value: (K,) float32 or float64, magnitudes over the step factor of their tensor.
        cuts: (T + 1,) int64, the candidates of tensor t are `cuts[t]:cuts[t + 1]`.
        bounds: (T + 1,) int64, the elements of tensor t are `bounds[t]:bounds[t + 1]`.
        threshold: values below it are missing.
    """

    where: NDArray[np.integer]
    value: NDArray[np.floating]
    cuts: NDArray[np.int64]
    bounds: NDArray[np.int64]
    threshold: float


@dataclass(frozen=True, eq=False)
class Symbols:
    """An update quantised at one step.

    Attributes:
        step: the common step.
        where: (K,) places of the non-zero symbols.
        magnitude: (K,) int32 or int64, >= 1.
        ratio: (K,) magnitude over step.
        cuts, bounds: as in `Significant`.
        labels: (T,) int64, class of each tensor, 0 = all zero, else 1.. from dense to sparse.
        bits: size of everything that grows with K.
        fixed: bytes of tables and heads.
    """

    step: float
    where: NDArray[np.integer]
    magnitude: NDArray[np.integer]
    ratio: NDArray[np.floating]
    cuts: NDArray[np.int64]
    bounds: NDArray[np.int64]
    labels: NDArray[np.int64]
    bits: float
    fixed: float


def survey(delta: NDArray[np.float32]) -> tuple[float, float, int]:
    """Largest magnitude, sum of squares and number of non-zero elements of (P,), in one pass."""
    peak, energy, nonzero = 0.0, 0.0, 0
    for start in range(0, len(delta), _BLOCK):
        block = delta[start : start + _BLOCK]
        peak = max(peak, float(block.max()), -float(block.min()))
        wide = block.astype(np.float64)
        energy += float(np.dot(wide, wide))
        nonzero += int(np.count_nonzero(block))
    return peak, energy, nonzero


def sample(delta: NDArray[np.float32], bounds: NDArray[np.int64],
           size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Evenly spread blocks of about `size` elements in all, and the bounds of the tensors within them."""
    blocks = max(size // SAMPLE_BLOCK, 1)
    starts = (np.arange(blocks) * (len(delta) - SAMPLE_BLOCK)) // max(blocks - 1, 1)
    index = (starts[:, None] + np.arange(SAMPLE_BLOCK)).ravel()
    return delta[index], np.searchsorted(index, bounds).astype(np.int64)


def collect(delta: NDArray[np.float32], bounds: NDArray[np.int64], factors: NDArray[np.float64] | None,
            threshold: float, peak: float) -> Significant:
    """The elements whose magnitude, over the step factor of their tensor, is at least `threshold`.

    Args:
        delta: (P,) float32.
        bounds: (T + 1,), the elements of each tensor.
        factors: (T,) step of a tensor over the common step; None = 1 everywhere.
        threshold: > 0, of float32 range.
        peak: the largest magnitude of `delta`.
    """
    places, values = [], []
    place_type = np.int32 if len(delta) < 2**31 else np.int64
    exact = peak < _EXACT * threshold and (factors is None or peak < _EXACT * threshold * factors.min())
    if factors is None:
        runs = [(0, len(delta), 1.0)]
    else:
        runs = [(a, b, f) for a, b, f in zip(bounds.tolist(), bounds[1:].tolist(), factors.tolist(),
                                             strict=False)]
    for begin, end, factor in runs:
        least = np.float32(min(threshold * factor, float(np.finfo(np.float32).max)))
        for start in range(begin, end, _BLOCK):
            block = np.abs(delta[start : min(start + _BLOCK, end)])
            index = np.flatnonzero(block >= least)
            chosen = block[index] if exact else block[index].astype(np.float64)
            places.append(index.astype(place_type) + place_type(start))
            values.append(chosen if factor == 1.0 else chosen / chosen.dtype.type(factor))
    where = np.concatenate(places) if places else np.zeros(0, place_type)
    value = np.concatenate(values) if values else np.zeros(0, np.float32)
    return Significant(where, value, np.searchsorted(where, bounds).astype(np.int64), bounds, threshold)


def symbols(found: Significant, step: float, rho: float,
            labels: NDArray[np.int64] | None = None, classes: int = MAX_CLASSES) -> Symbols:
    """The symbols at a step and what they cost.

    Args:
        found: candidates down to `(1 - rho) * step` at least.
        step: > 0.
        rho: the rounding offset, see `quantizer.quantize`.
        labels: classes found at a step nearby, to be kept.
        classes: how many to begin merging with; fewer are found faster.
    """
    ratio = found.value / found.value.dtype.type(step)
    if ratio.dtype == np.float32:
        magnitude = (ratio + np.float32(rho)).astype(np.int32)
    else:
        magnitude = np.minimum(ratio + rho, float(coder.MAX_VALUE)).astype(np.int64)
    chosen = np.flatnonzero(magnitude)
    cuts = np.searchsorted(chosen, found.cuts).astype(np.int64)
    where, magnitude, ratio = found.where[chosen], magnitude[chosen], ratio[chosen]
    gap = coder.tokens_of(gaps(where, cuts, found.bounds))
    size = coder.tokens_of(magnitude - 1)
    labels, bits, fixed = _classes(gap, size, magnitude, cuts, found.bounds, labels, classes)
    return Symbols(step, where, magnitude, ratio, cuts, found.bounds, labels, bits, fixed)


def gaps(where: NDArray[np.integer], cuts: NDArray[np.int64],
         bounds: NDArray[np.int64]) -> NDArray[np.integer]:
    """Zeros before each non-zero symbol within its tensor."""
    out = np.empty_like(where)
    out[1:] = where[1:] - where[:-1]
    out -= 1
    live = np.flatnonzero(cuts[1:] > cuts[:-1])
    first = cuts[live]
    out[first] = where[first] - bounds[live].astype(where.dtype)
    return out


def _classes(gap, size, magnitude, cuts, bounds, labels, classes) -> tuple[NDArray[np.int64], float, float]:
    """A class for each tensor, neighbours in density merged while merging saves bytes; with their size."""
    counts, elements = np.diff(cuts), np.diff(bounds)
    live = np.flatnonzero(counts)
    total = np.zeros(len(counts), np.float64)
    if len(live):
        total[live] = np.add.reduceat(magnitude, cuts[live], dtype=np.float64)
    if labels is None:
        density = total[live] / elements[live]
        order = live[np.argsort(-density, kind="stable")]
        n = min(len(order), classes, 1 + int(counts.sum()) // 256)
        groups = [g for g in np.array_split(order, n) if len(g)] if n else []
    else:
        late = live[labels[live] == 0]
        labels = labels.copy()
        labels[late] = max(int(labels.max(initial=0)), 1)
        groups = [g for k in range(1, int(labels.max(initial=0)) + 1)
                  if len(g := np.flatnonzero((labels == k) & (counts > 0)))]
    rank = np.zeros(len(counts), np.int64)
    for k, g in enumerate(groups):
        rank[g] = k
    shape = (len(groups), coder.MAX_TOKEN)
    if len(groups) > 1:
        base = np.repeat((rank * coder.MAX_TOKEN).astype(np.int16), counts)
        hists = [np.bincount(base + t, minlength=shape[0] * shape[1]).reshape(shape) for t in (gap, size)]
    else:
        hists = [np.bincount(t, minlength=shape[1])[None, :] for t in (gap, size)]
    hist = np.stack(hists, axis=1).astype(np.float64)[: len(groups)]  # (G, 2, tokens)
    sums = np.array([[total[g].sum(), elements[g].sum()] for g in groups]).reshape(-1, 2)
    costs = _cost(hist, sums)
    both = _cost(hist[1:] + hist[:-1], sums[1:] + sums[:-1])  # of each class and the next together
    while labels is None and len(groups) > 1:
        saved = (costs[1:] + costs[:-1] - both).sum(axis=1)
        k = int(np.argmax(saved))
        if saved[k] < 0:
            break
        groups[k : k + 2] = [np.concatenate(groups[k : k + 2])]
        hist[k] += hist[k + 1]
        sums[k] += sums[k + 1]
        costs[k] = both[k]
        hist, sums, costs = (np.delete(x, k + 1, axis=0) for x in (hist, sums, costs))
        both = np.delete(both, k, axis=0)
        for j in range(max(k - 1, 0), min(k + 1, len(both))):
            both[j] = _cost(hist[j : j + 1] + hist[j + 1 : j + 2], sums[j : j + 1] + sums[j + 1 : j + 2])[0]
    out = np.zeros(len(counts), np.int64)
    for k, g in enumerate(groups):
        out[g] = k + 1
    return out, float(costs[:, 0].sum()), float(costs[:, 1].sum()) / 8


def _cost(hist: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(G, 2): bits of the symbols of classes, and of their models and heads.

    Args:
        hist: (G, 2, tokens) counts of gap and of magnitude tokens.
        sums: (G, 2) sum of the magnitudes, and elements.
    """
    n = hist.sum(axis=2)
    coded = hist @ coder.WIDTHS.astype(np.float64) - _xlogx(hist).sum(axis=2) + _xlogx(n)
    table = 8.0 * (2.0 + np.count_nonzero(hist, axis=2))
    trials = np.stack((np.maximum(sums[:, 1], n[:, 0]), sums[:, 0]), axis=1)  # of a coin with n heads
    geometric = _xlogx(trials) - _xlogx(n) - _xlogx(trials - n)
    parameters = np.array([8.0, 8.0])
    use = geometric + parameters < coded + table
    bits = np.where(use, geometric, coded).sum(axis=1) + n[:, 0]  # and the signs
    return np.stack((bits, np.where(use, parameters, table).sum(axis=1) + 8 * _CLASS_HEAD), axis=1)


def _xlogx(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.log2(np.maximum(x, 1.0))
