"""The registry of update codecs: one signature, one numeric id each in the UPDATE frame.

`encode(delta, sizes, budget) -> payload` and `decode(payload, sizes) -> float32 (P,)`. Encoders
return bytes only: decoding them is the one way to learn what was sent, so the cloud's mirror and the devices
cannot differ. `dyadic` is the method; the others are what the field sends (`baselines.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdc_flower.downlink import baselines, dyadic


@dataclass(frozen=True)
class Codec:
    """One way to write a difference of adapters.

    Attributes:
        name: its key in `CODECS`.
        id: its number in UPDATE frames, never reused.
        budgeted: whether it aims at the byte budget; the others have one size.
        encode_exact: (difference (P,) of two adapters, sizes) -> a payload that decodes to it, or None;
            only where updates add up without rounding, so that one can stand for many.
    """

    name: str
    id: int
    budgeted: bool
    _encode: Callable[..., bytes]
    _decode: Callable[[bytes, Sequence[int]], NDArray[np.float32]]
    encode_exact: Callable[[NDArray[np.floating], Sequence[int]], bytes | None] | None = None

    def encode(self, delta: NDArray[np.float32], sizes: Sequence[int], budget: int) -> bytes:
        """The payload of `delta` (P,) float32; at most `budget` bytes if `budgeted`.

        Args:
            delta: what to add to the adapter.
            sizes: elements of each tensor, summing to P.
            budget: bytes, >= 1.

        Raises:
            ValueError: NaN or infinity in `delta`, sizes that do not sum to P, a budget below 1.
        """
        delta = np.asarray(delta)
        if delta.dtype != np.float32 or delta.ndim != 1:
            raise ValueError(f"delta must be a flat float32 vector, not {delta.dtype} of shape {delta.shape}")
        if sum(sizes) != len(delta) or any(s < 0 for s in sizes):
            raise ValueError(f"sizes sum to {sum(sizes)}, delta has {len(delta)} elements")
        if not np.isfinite(delta).all():
            bad = int((~np.isfinite(delta)).sum())
            raise ValueError(f"delta has {bad} elements that are NaN or infinite")
        if budget < 1:
            raise ValueError(f"budget of {budget} bytes; allowed: at least 1")
        return self._encode(delta, sizes, budget)

    def decode(self, payload: bytes, sizes: Sequence[int]) -> NDArray[np.float32]:
        """The vector (P,) float32, always finite. Memory is bounded by the sizes, not by what the payload
        claims.

        Raises:
            FrameError: bytes that `encode` cannot have written for these sizes.
        """
        return self._decode(payload, sizes)


CODECS: dict[str, Codec] = {
    c.name: c
    for c in (
        Codec("dyadic", 1, True, dyadic.encode, dyadic.decode, dyadic.encode_exact),
        Codec("fp16", 2, False, baselines.encode_fp16, baselines.decode_fp16),
        Codec("int8", 3, False, baselines.encode_int8, baselines.decode_int8),
        Codec("topk", 4, True, baselines.encode_topk, baselines.decode_topk),
        Codec("nf4", 5, False, baselines.encode_nf4, baselines.decode_nf4),
        Codec("topk_int4", 6, True, baselines.encode_topk_int4, baselines.decode_topk_int4),
        Codec("stc", 7, True, baselines.encode_stc, baselines.decode_stc),
    )
}
"""Codec name (config key `codec`) -> Codec."""

BY_ID: dict[int, Codec] = {c.id: c for c in CODECS.values()}
"""Codec number in a frame -> Codec."""
