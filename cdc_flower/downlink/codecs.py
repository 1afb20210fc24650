"""The registry of update codecs: one signature, one numeric id each in the UPDATE frame.

`encode(delta, sizes, budget, weights) -> payload` and `decode(payload, sizes) -> float32 (P,)`. Encoders
return bytes only: decoding them is the one way to learn what was sent, so the cloud's mirror and the devices
cannot differ. `deadzone` is the method; `fp16`, `int8` and `topk` (fp16 values with 32-bit indices) are what
others ship.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdc_flower.downlink import deadzone
from cdc_flower.wire.frame import FrameError

HALF_MAX = 65504.0
_PAIR = 6  # bytes of one index and one value of top-k


@dataclass(frozen=True)
class Codec:
    """One way to write a difference of adapters.

    Attributes:
        name: its key in `CODECS`.
        id: its number in UPDATE frames, never reused.
        budgeted: whether it aims at the byte budget; the others have one size.
    """

    name: str
    id: int
    budgeted: bool
    _encode: Callable[..., bytes]
    _decode: Callable[[bytes, Sequence[int]], NDArray[np.float32]]

    def encode(self, delta: NDArray[np.float32], sizes: Sequence[int], budget: int,
               weights: Sequence[float] | None = None) -> bytes:
        """The payload of `delta` (P,) float32; at most `budget` bytes if `budgeted`.

        Args:
            delta: what to add to the adapter.
            sizes: elements of each tensor, summing to P.
            budget: bytes, >= 1.
            weights: importance of the squared error per tensor, positive; used by `deadzone` alone.

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
        return self._encode(delta, sizes, budget, weights)

    def decode(self, payload: bytes, sizes: Sequence[int]) -> NDArray[np.float32]:
        """The vector (P,) float32, always finite. Memory is bounded by the sizes, not by what the payload
        claims.

        Raises:
            FrameError: bytes that `encode` cannot have written for these sizes.
        """
        return self._decode(payload, sizes)


def _half(values: NDArray[np.floating]) -> NDArray[np.float16]:
    return np.clip(values, -HALF_MAX, HALF_MAX).astype("<f2")


def _encode_fp16(delta, sizes, budget, weights) -> bytes:
    return _half(delta).tobytes()


def _decode_fp16(payload, sizes):
    if len(payload) != 2 * sum(sizes):
        raise FrameError(f"fp16 payload: {len(payload)} bytes for {sum(sizes)} elements")
    return _finite(np.frombuffer(payload, "<f2").astype(np.float32), "fp16")


def _finite(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise FrameError(f"{name} payload: a value is not finite")
    return values


def _encode_int8(delta, sizes, budget, weights) -> bytes:
    cuts = np.cumsum(np.asarray(sizes, np.int64))[:-1]
    tensors = np.split(delta, cuts) if len(sizes) else []
    scales = np.array([np.max(np.abs(t), initial=0) for t in tensors], "<f4")
    wide = np.repeat(np.where(scales > 0, scales, 1).astype(np.float64), sizes)
    return scales.tobytes() + np.rint(delta.astype(np.float64) / wide * 127).astype(np.int8).tobytes()


def _decode_int8(payload, sizes):
    if len(payload) != 4 * len(sizes) + sum(sizes):
        raise FrameError(f"int8 payload: {len(payload)} bytes, {len(sizes)} tensors, {sum(sizes)} elements")
    scales = _finite(np.frombuffer(payload, "<f4", len(sizes)), "int8")
    symbols = np.frombuffer(payload, np.int8, offset=4 * len(sizes))
    if (scales < 0).any() or (symbols == -128).any():
        raise FrameError("int8 payload: a negative scale or the symbol -128")
    return (symbols.astype(np.float64) / 127 * np.repeat(scales.astype(np.float64), sizes)).astype(np.float32)


def _encode_topk(delta, sizes, budget, weights) -> bytes:
    keep = min(budget // _PAIR, int(np.count_nonzero(delta)))
    index = np.sort(np.argsort(-np.abs(delta), kind="stable")[:keep])
    return index.astype("<u4").tobytes() + _half(delta[index]).tobytes()


def _decode_topk(payload, sizes):
    keep, rest = divmod(len(payload), _PAIR)
    if rest:
        raise FrameError(f"topk payload: {len(payload)} bytes are not pairs of {_PAIR}")
    out = np.zeros(sum(sizes), np.float32)
    index = np.frombuffer(payload, "<u4", keep).astype(np.int64)
    if keep and (index[-1] >= len(out) or (np.diff(index) <= 0).any()):
        raise FrameError(f"topk payload: indices must rise strictly below {len(out)}")
    out[index] = _finite(np.frombuffer(payload, "<f2", keep, 4 * keep).astype(np.float32), "topk")
    return out


CODECS: dict[str, Codec] = {
    c.name: c for c in (
        Codec("deadzone", 1, True, deadzone.encode, deadzone.decode),
        Codec("fp16", 2, False, _encode_fp16, _decode_fp16),
        Codec("int8", 3, False, _encode_int8, _decode_int8),
        Codec("topk", 4, True, _encode_topk, _decode_topk),
    )
}
"""Codec name (config key `codec`) -> Codec."""

BY_ID: dict[int, Codec] = {c.id: c for c in CODECS.values()}
"""Codec number in a frame -> Codec."""
