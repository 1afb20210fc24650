"""Updates of the adapter to measure codecs by, and one taken apart: its bytes beside what they must cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdc_flower.downlink import dyadic, update
from cdc_flower.wire import coder

DISTRIBUTIONS = ("gaussian", "laplace", "student3", "layers")
TENSORS = 50


@dataclass(frozen=True)
class Tensors:
    """A layout without names, for a mirror."""

    sizes: tuple[int, ...]
    digest: bytes = bytes(8)


def draw(kind: str, sizes: Sequence[int], seed: int = 0) -> NDArray[np.float32]:
    """An update (P,) float32 of a distribution, with scales around 1e-3.

    Raises:
        ValueError: unknown distribution.
    """
    rng, n = np.random.default_rng([seed, DISTRIBUTIONS.index(kind)]), sum(sizes)
    match kind:
        case "gaussian":
            x = rng.standard_normal(n, np.float32)
        case "student3":
            x = rng.standard_t(3, n).astype(np.float32)
        case "laplace":
            x = rng.laplace(size=n).astype(np.float32)
        case _:
            scale = 30.0 ** -rng.random(len(sizes))
            x = (rng.laplace(size=n) * np.repeat(scale, sizes)).astype(np.float32)
    x *= np.float32(1e-3)
    return x


def even(total: int, tensors: int = TENSORS) -> list[int]:
    """Sizes of so many tensors of nearly equal size."""
    return np.diff(np.arange(tensors + 1) * total // tensors).tolist()


def entropy_bits(symbols: NDArray[np.integer]) -> float:
    """Bits of all symbols at their own empirical distribution."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / len(symbols))).sum())


def choose_bits(n: int, k: int) -> float:
    """log2 C(n, k)."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


@dataclass(frozen=True)
class Sizes:
    """One update taken apart: bytes as coded, the limits, and what is left around them."""

    positions: float
    positions_limit: float
    values: float
    values_limit: float
    envelope: int
    frame: int

    @property
    def whole(self) -> float:
        """Coded bytes over both limits."""
        return (self.frame - self.envelope) / (self.positions_limit + self.values_limit)


def take_apart(payload: bytes, sizes: Sequence[int]) -> Sizes:
    """Bytes of a `dyadic` payload against its limits: positions sum log2 C(N, K) over the classes; values
    the empirical entropy of each class's magnitudes and a bit per sign.

    A stream's bytes are its model and its symbols under it; that the coder writes whole words belongs to the
    whole.
    """
    _, classes = dyadic.read(payload, sizes)
    positions = positions_limit = values = values_limit = 0.0
    coded, shares, signs = [], [], 0
    for c in classes:
        k, gaps, beyond = c.count, c.gaps.take(c.count), c.sizes.take(c.count)
        positions += coder.information(gaps, (k, c.elements)) / 8
        values += (coder.information(beyond, dyadic.EVEN) + k) / 8
        positions_limit += choose_bits(c.elements, k) / 8
        values_limit += (entropy_bits(beyond) + k) / 8
        coded += [gaps, beyond]
        shares += [(k, c.elements), dyadic.EVEN]
        signs += k
    body = len(coder.encode(coded, shares)) + (signs + 7) // 8
    frame = len(payload) + update.ENVELOPE
    return Sizes(positions, positions_limit, values, values_limit, frame - body, frame)
