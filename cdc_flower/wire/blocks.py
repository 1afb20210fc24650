"""Some blocks of an adapter, whole, in float16: which ones, then their weights.

A block is a layer of the language model, its embedding, its head, the projector, or what belongs to none of
them. Layout of the bytes: a bitmap of the blocks, the first in the lowest bit; then the weights of those that
are set, in the order of the flat adapter, little-endian float16.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdc_flower.models.adapters import Layout
from cdc_flower.wire.frame import FrameError

PLACES = (("head", r"\.lm_head\."), ("embedding", r"embed_tokens"), ("projector", r"projector|connector"))
"""Block -> what is in the names of its tensors; layers are blocks by their number."""


def block_of(name: str) -> str:
    """The block of a tensor."""
    if layer := re.search(r"\.layers\.(\d+)\.", name):
        return f"layer {layer[1]}"
    return next((block for block, form in PLACES if re.search(form, name)), "rest")


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of an adapter (P,).

    Attributes:
        names: of the blocks.
        of: (P,) int64, of each weight its block.
        sizes: (blocks,) int64, weights of each.
    """

    names: tuple[str, ...]
    of: np.ndarray
    sizes: np.ndarray

    @classmethod
    def read(cls, layout: Layout) -> Blocks:
        """Those of an adapter."""
        mine = [block_of(name) for name in layout.names]
        names = tuple(dict.fromkeys(mine))
        of = np.repeat([names.index(block) for block in mine], layout.sizes)
        return cls(names, of, np.bincount(of, minlength=len(names)))

    @property
    def head(self) -> int:
        """Bytes of the bitmap."""
        return -(-len(self.names) // 8)

    def places(self, mix: Sequence[int]) -> np.ndarray:
        """Where the weights of some blocks stand, rising."""
        return np.flatnonzero(np.isin(self.of, list(mix)))

    def fitting(self, worth: np.ndarray, share: float) -> list[int]:
        """The blocks that are worth most a weight, as many as fit into a share of all weights; the smallest
        where none does.

        Args:
            worth: (blocks,) of each as a whole.
            share: of the adapter's weights, 0..1.
        """
        left, mix = share * len(self.of), list[int]()
        for block in np.argsort(-worth / self.sizes, kind="stable").tolist():
            if self.sizes[block] <= left:
                left -= self.sizes[block]
                mix.append(block)
        return sorted(mix or [int(np.argmin(self.sizes))])

    def encode(self, mix: Sequence[int], flat: np.ndarray) -> bytes:
        """The weights of some blocks of an adapter (P,)."""
        bits = np.isin(np.arange(8 * self.head), list(mix))
        with np.errstate(over="ignore"):
            values = flat[self.places(mix)].astype("<f2")
        return np.packbits(bits, bitorder="little").tobytes() + values.tobytes()

    def decode(self, data: bytes) -> tuple[list[int], np.ndarray]:
        """Which blocks, and their weights.

        Raises:
            FrameError: not what `encode` makes of finite weights.
        """
        bits = np.unpackbits(np.frombuffer(data[: self.head], np.uint8), bitorder="little")
        mix = np.flatnonzero(bits).tolist()
        if len(data) < self.head or not mix or mix[-1] >= len(self.names):
            raise FrameError(f"blocks {mix[:8]}; allowed: some of 0..{len(self.names) - 1}")
        size = int(self.sizes[mix].sum())
        if len(data) != self.head + 2 * size:
            raise FrameError(f"{len(data)} bytes of blocks {mix}; allowed: {self.head + 2 * size}")
        values = np.frombuffer(data, "<f2", size, self.head)
        if not np.isfinite(values).all():
            raise FrameError("a weight of a block is not finite")
        return mix, values
