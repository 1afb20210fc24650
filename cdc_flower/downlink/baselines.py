"""The codecs of others, for comparison: how the field sends an update today, each at its best bytes.

`fp16` and `int8` are dense; `nf4` is the 4-bit block format of QLoRA (arXiv 2305.14314); `topk` sends fp16
values with 32-bit indices; `topk_int4` and `stc` (sparse ternary compression, Sattler et al., arXiv
1903.02891) send their positions as entropy-coded gaps, by the coder of `dyadic` where the paper has Golomb
codes. The sparse ones choose the largest elements of the whole vector; the error feedback of `stc` is the
mirror (`versions.py`), as it is for every codec. Layout of the payloads: `docs/wire-format.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire import coder, columns, packing
from cdc_flower.wire.frame import FrameError

HALF_MAX = 65504.0
PAIR = 6  # bytes of one index and one value of top-k
NF4_BLOCK = 64
NF4_CODE = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
)
"""(16,) quantiles of a normal distribution within -1..1, exact zero included (QLoRA, appendix E)."""
_NF4_EDGES = (NF4_CODE[1:] + NF4_CODE[:-1]) / 2
_LEVELS = 7  # of int4
_TURNS = 12


def _half(values: NDArray[np.floating]) -> NDArray[np.float16]:
    return np.clip(values, -HALF_MAX, HALF_MAX).astype("<f2")


def _finite(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise FrameError(f"{name} payload: a value is not finite")
    return values


def _scales(payload: bytes, count: int, at: int, name: str) -> NDArray[np.float32]:
    """`count` float32 scales at `at`, checked."""
    if len(payload) < at + 4 * count:
        raise FrameError(f"{name} payload: cut short in its scales")
    scales = _finite(np.frombuffer(payload, "<f4", count, at), name)
    if (scales < 0).any():
        raise FrameError(f"{name} payload: a negative scale")
    return scales


def encode_fp16(delta, sizes, budget) -> bytes:
    """P float16; beyond 65504 saturated."""
    return _half(delta).tobytes()


def decode_fp16(payload, sizes) -> NDArray[np.float32]:
    """The inverse of `encode_fp16`."""
    if len(payload) != 2 * sum(sizes):
        raise FrameError(f"fp16 payload: {len(payload)} bytes for {sum(sizes)} elements")
    return _finite(np.frombuffer(payload, "<f2").astype(np.float32), "fp16")


def encode_int8(delta, sizes, budget) -> bytes:
    """One absmax scale per tensor; an error of at most `scale / 254`."""
    cuts = np.cumsum(np.asarray(sizes, np.int64))[:-1]
    tensors = np.split(delta, cuts) if len(sizes) else []
    scales = np.array([np.max(np.abs(t), initial=0) for t in tensors], "<f4")
    wide = np.repeat(np.where(scales > 0, scales, 1).astype(np.float64), sizes)
    return scales.tobytes() + np.rint(delta.astype(np.float64) / wide * 127).astype(np.int8).tobytes()


def decode_int8(payload, sizes) -> NDArray[np.float32]:
    """The inverse of `encode_int8`."""
    if len(payload) != 4 * len(sizes) + sum(sizes):
        raise FrameError(f"int8 payload: {len(payload)} bytes, {len(sizes)} tensors, {sum(sizes)} elements")
    scales = _scales(payload, len(sizes), 0, "int8")
    symbols = np.frombuffer(payload, np.int8, offset=4 * len(sizes))
    if (symbols == -128).any():
        raise FrameError("int8 payload: the symbol -128")
    return (symbols.astype(np.float64) / 127 * np.repeat(scales.astype(np.float64), sizes)).astype(np.float32)


def encode_nf4(delta, sizes, budget) -> bytes:
    """One absmax scale per 64 elements of the vector; an error of at most 0.152 scales."""
    blocks = np.pad(delta, (0, -len(delta) % NF4_BLOCK)).reshape(-1, NF4_BLOCK)
    scales = np.abs(blocks).max(axis=1).astype("<f4")
    wide = np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
    symbols = np.searchsorted(_NF4_EDGES, (blocks.astype(np.float64) / wide).ravel()).astype(np.uint8)
    return scales.tobytes() + packing.pack_nibbles(symbols[: len(delta)])


def decode_nf4(payload, sizes) -> NDArray[np.float32]:
    """The inverse of `encode_nf4`."""
    total = sum(sizes)
    blocks = -(-total // NF4_BLOCK)
    if len(payload) != 4 * blocks + (total + 1) // 2:
        raise FrameError(f"nf4 payload: {len(payload)} bytes for {total} elements in {blocks} blocks")
    scales = np.repeat(_scales(payload, blocks, 0, "nf4"), NF4_BLOCK)[:total]
    symbols = packing.unpack_nibbles(payload[4 * blocks :], total, "nf4 payload")
    return (NF4_CODE[symbols] * scales.astype(np.float64)).astype(np.float32)


def _largest(delta: NDArray[np.float32]) -> NDArray[np.int64]:
    """Places of the non-zero elements, the largest first, ties by place."""
    order = np.argsort(-np.abs(delta), kind="stable")
    return order[: int(np.count_nonzero(delta))]


def encode_topk(delta, sizes, budget) -> bytes:
    """The largest `budget // 6` elements: u32 places, float16 values.

    Fewer where fewer are not zero; b"" below 6 bytes. A value beyond 65504 saturates.
    """
    index = np.sort(_largest(delta)[: budget // PAIR])
    return index.astype("<u4").tobytes() + _half(delta[index]).tobytes()


def decode_topk(payload, sizes) -> NDArray[np.float32]:
    """The inverse of `encode_topk`: (P,) float32, zero where nothing was sent.

    Raises:
        FrameError: not whole pairs, places that do not rise or lie beyond P, a value that is not finite.
    """
    keep, rest = divmod(len(payload), PAIR)
    if rest:
        raise FrameError(f"topk payload: {len(payload)} bytes are not pairs of {PAIR}")
    out = np.zeros(sum(sizes), np.float32)
    index = np.frombuffer(payload, "<u4", keep).astype(np.int64)
    if keep and (index[-1] >= len(out) or (np.diff(index) <= 0).any()):
        raise FrameError(f"topk payload: indices must rise strictly below {len(out)}")
    out[index] = _finite(np.frombuffer(payload, "<f2", keep, 4 * keep).astype(np.float32), "topk")
    return out


def _fill(order: NDArray[np.int64], budget: int, write: Callable[[NDArray[np.int64]], bytes]) -> bytes:
    """The longest payload found within the budget over how many of the first places are kept; at least the
    empty one, of one byte."""
    best, low, high = write(order[:0]), 0, len(order)
    under, over, keep = len(best), 0, min(len(order), budget)
    for turn in range(_TURNS):
        if keep <= low:
            break
        payload = write(np.sort(order[:keep]))
        if len(payload) <= budget:
            best, low, under = payload, keep, len(payload)
            if keep == len(order) or under >= budget - max(3, budget // 500):
                break
        else:
            high, over = keep, len(payload)
        if not over:
            keep = min(2 * keep, high)
        else:
            share = (budget - under) / (over - under) if turn < _TURNS - 4 else 0.5
            keep = low + max(int(share * (high - low)), 1)
            keep = min(keep, high - 1)
    return best


def _places(index: NDArray[np.int64], total: int) -> bytes:
    """How many places, the length of their coded gaps, and the gaps; of at least one place."""
    gaps = coder.encode([packing.gaps(index)], [(len(index), total)])
    return columns.varint(len(index)) + columns.varint(len(gaps)) + gaps


def _read_count(payload: bytes, total: int, name: str) -> tuple[int, int]:
    keep, at = columns.read_varint(payload, 0, f"{name} count")
    if keep > total:
        raise FrameError(f"{name} payload: {keep} values of {total} elements")
    if not keep and len(payload) > at:
        raise FrameError(f"{name} payload: bytes after an empty update")
    return keep, at


def _tensors(index: NDArray[np.int64], sizes: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of the places lie in each tensor, and the tensors that have some."""
    ends = np.cumsum(np.asarray(sizes, np.int64))
    counts = np.diff(np.searchsorted(index, ends), prepend=0)
    return counts, np.flatnonzero(counts)


def encode_topk_int4(delta, sizes, budget) -> bytes:
    """The largest elements in 4 bits with one absmax scale per tensor; an error of at most `scale / 14`."""

    def write(index):
        if not len(index):
            return b"\0"
        counts, live = _tensors(index, sizes)
        value = delta[index].astype(np.float64)
        starts = (np.cumsum(counts) - counts)[live]
        scales = np.maximum.reduceat(np.abs(value), starts).astype("<f4")
        symbols = np.rint(value / np.repeat(scales.astype(np.float64), counts[live]) * _LEVELS) + 8
        return _places(index, len(delta)) + scales.tobytes() + packing.pack_nibbles(symbols.astype(np.uint8))

    return _fill(_largest(delta), budget, write)


def _read_sparse(
    payload: bytes, sizes: Sequence[int], name: str
) -> tuple[NDArray[np.int64], NDArray[np.float32], bytes]:
    """What `_places` and one scale per live tensor say: the places, the scale of each, and the rest."""
    total = sum(sizes)
    keep, at = _read_count(payload, total, name)
    if not keep:
        return np.zeros(0, np.int64), np.zeros(0, np.float32), b""
    length, at = columns.read_varint(payload, at, f"{name} gaps")
    if len(payload) < at + length:
        raise FrameError(f"{name} payload: cut short in its gaps")
    (gaps,) = coder.decode(payload[at : at + length], [keep], [(keep, total)])
    index, at = packing.places(gaps), at + length
    if index[-1] >= total:
        raise FrameError(f"{name} payload: position {index[-1]} in a vector of {total} elements")
    counts, live = _tensors(index, sizes)
    scales = _scales(payload, len(live), at, name)
    return index, np.repeat(scales, counts[live]), payload[at + 4 * len(live) :]


def decode_topk_int4(payload, sizes) -> NDArray[np.float32]:
    """The inverse of `encode_topk_int4`."""
    index, scales, body = _read_sparse(payload, sizes, "topk_int4")
    symbols = packing.unpack_nibbles(body, len(index), "topk_int4 payload")
    if not symbols.all():
        raise FrameError("topk_int4 payload: the symbol -8")
    out = np.zeros(sum(sizes), np.float32)
    out[index] = ((symbols.astype(np.float64) - 8) / _LEVELS * scales.astype(np.float64)).astype(np.float32)
    return out


def encode_stc(delta, sizes, budget) -> bytes:
    """The signs of the largest elements and one magnitude per tensor, their mean.

    Never more elements than the error gains by: with one magnitude it is `sum(x**2) - sum(kept |x|)**2 / k`.
    """

    def write(index):
        if not len(index):
            return b"\0"
        counts, live = _tensors(index, sizes)
        value = delta[index].astype(np.float64)
        sums = np.add.reduceat(np.abs(value), (np.cumsum(counts) - counts)[live])
        means = (sums / counts[live]).astype("<f4")
        return _places(index, len(delta)) + means.tobytes() + np.packbits(value < 0).tobytes()

    order = _largest(delta)
    gain = np.cumsum(np.abs(delta[order], dtype=np.float64)) / np.sqrt(np.arange(1, len(order) + 1))
    return _fill(order[: int(np.argmax(gain)) + 1 if len(gain) else 0], budget, write)


def decode_stc(payload, sizes) -> NDArray[np.float32]:
    """The inverse of `encode_stc`."""
    index, value, signs = _read_sparse(payload, sizes, "stc")
    row = packing.packed_row(signs, len(index), "stc payload: signs")
    minus = packing.read_bits(row, 0, len(index)).view(bool)
    out = np.zeros(sum(sizes), np.float32)
    out[index] = np.where(minus, -value, value)
    return out
