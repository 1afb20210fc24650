"""The uplink unit: what a device sends of the samples it is uncertain about, and nothing else.

A dropped token is absent, not zeroed: kept tokens travel with their positions (as gaps), quantised with one
float16 scale per token, or as float16 (`bits=16`, for the arm that uploads all). The questions and the
device's own answers travel as token ids. Columns, not rows: all samples' values of one kind stand together
and are stored the smallest of three lossless ways. The scale is rounded up, so every value lies within half a
step of the original; what the frame decodes to is exactly what the quantiser defines.

With a `Transform` (the PCA of a tower's outputs) symbols are those of the components, each group of them with
a coding model of its own: fewer bytes at the same error (docs/log.md).

Declared error, with m the largest magnitude of the token and L = 3, 7, 127 for 3, 4, 8 bits:
|x - value| <= scale / 2 <= m (1 + 2^-10) / (2 L) + 2^-25, that is 16.7 %, 7.2 %, 0.4 % of m. With a transform
m is that of x - mean, and sqrt(D) times the bound holds for the Euclidean length of a token's error.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from cdc_flower.models.transform import DIGEST_BYTES, GROUPS, Transform
from cdc_flower.uplink.sample import COUNT, HALF_MAX, LOOSE, Batch, Fits, Limits, pack_samples, unpack_samples
from cdc_flower.wire import coder, coder_models, columns, packing
from cdc_flower.wire.frame import FrameError, Kind, envelope, pack, unpack

BITS = (3, 4, 8, 16)
_HEAD = struct.Struct("<IIIIHB")  # device, round, version, samples, width, bits; then the table of grids
SECTIONS = 1 + COUNT + 2  # the head, the columns of samples, scales, values
_SCALES, _VALUES = COUNT, COUNT + 1  # places behind the head


def sample_bytes(n_tokens_kept: int, width: int, bits: int, max_text: int, transformed: bool = False) -> int:
    """An upper bound of the frame of one sample, for a check of the byte budget before a run.

    Args:
        n_tokens_kept: K.
        width: D.
        bits: 3, 4, 8 or 16.
        max_text: question and answer ids together.
        transformed: whether a `Transform` is used; real frames are a half of this bound then.
    """
    fixed = envelope(SECTIONS) + _HEAD.size + 7 + (SECTIONS - 1) + 4 + 4 * 2
    if transformed and bits < 16:  # coded symbols cost at most what all up to the largest would, evenly used
        largest = 2 * _highest(width, bits)
        bits = largest.bit_length()
        fixed += 4 + DIGEST_BYTES + GROUPS * (3 + int(coder_models.tokens_of(np.array([largest]))[0])) + 8
    per_token = (width * bits + 7) // 8 + 2 + (0 if bits == 16 else 2)
    return fixed + n_tokens_kept * per_token + 4 * max_text


def quantize(tokens: NDArray[np.float32], bits: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Symbols int8 (M, D) and scales float16 (M,) of tokens (M, D); |x - symbol * scale| <= scale / 2.

    Symbols lie in -L..L with L = 2^(bits - 1) - 1; a scale is the smallest float16 with L * scale >= max |x|.

    Raises:
        ValueError: a token that is not finite or whose scale is beyond float16.
    """
    levels = 2 ** (bits - 1) - 1
    peak = np.max(np.abs(tokens.astype(np.float64)), axis=1, initial=0.0) / levels
    if not (peak <= HALF_MAX).all():
        raise ValueError(f"a token is not finite or above {HALF_MAX * levels:.0f}: no float16 scale for it")
    scale = peak.astype(np.float16)
    scale = np.where(scale.astype(np.float64) < peak, np.nextafter(scale, np.float16(np.inf)), scale)
    divisor = np.where(scale > 0, scale, 1).astype(np.float64)[:, None]
    symbols = np.clip(np.rint(tokens.astype(np.float64) / divisor), -levels, levels).astype(np.int8)
    return symbols, scale


def _spread(
    tokens: NDArray[np.float32], bits: int, transform: Transform
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Symbols (M, D) of the components and scales (M,), those of the balanced tokens (M, D)."""
    balanced = transform.balanced(tokens)
    _, scale = quantize(balanced, bits)
    divisor = np.where(scale > 0, scale, 1).astype(np.float64)[:, None]
    return np.rint(transform.forward(balanced) / divisor).astype(np.int64), scale


def _highest(width: int, bits: int) -> int:
    """The largest magnitude of a symbol of a component: that of a token that lies along one axis."""
    return ceil(sqrt(width) * (2 ** (bits - 1) - 1)) + 1


def dequantize(symbols: NDArray[np.integer], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """Tokens float32 (M, D); the products are exact in float32."""
    return symbols.astype(np.float32) * scales.astype(np.float32)[:, None]


def quantized(
    tokens: NDArray[np.float32], bits: int, transform: Transform | None = None
) -> NDArray[np.float32]:
    """What is read of tokens (M, D) that were sent in so many bits, fewer than 16."""
    if transform is None:
        return dequantize(*quantize(tokens, bits))
    return transform.inverse(dequantize(*_spread(tokens, bits, transform)))


def error(tokens: NDArray[np.float32], bits: int, transform: Transform | None = None) -> float:
    """What quantising changes of tokens (M, D): the norm of the differences over that of the tokens."""
    back = quantized(tokens, bits, transform)
    return float(np.linalg.norm(back.astype(np.float64) - tokens) / np.linalg.norm(tokens))


def encode(batch: Batch, width: int, bits: int, transform: Transform | None = None) -> bytes:
    """The TOKEN_BATCH frame. A batch without samples is legal.

    Args:
        batch: what to send.
        width: D, at most 65535.
        bits: 3, 4 or 8 per value with a scale per token, or 16 for float16.
        transform: quantise the components that it gives; float16 is sent as it is.

    Raises:
        ValueError: a sample that does not fit these, a value that is not finite; nothing is sent that the
            reader would refuse.
    """
    if bits not in BITS:
        raise ValueError(f"{bits} bits per value; allowed: {', '.join(map(str, BITS))}")
    for sample in batch.samples:
        if np.shape(sample.tokens) != (len(sample.positions), width):
            shapes = f"{len(sample.positions)} positions, tokens {np.shape(sample.tokens)}"
            raise ValueError(f"sample {sample.index}: {shapes}, D {width}")
    samples = batch.samples
    empty = np.zeros((0, width), np.float32)
    tokens = np.concatenate([empty, *(np.asarray(s.tokens, np.float32) for s in samples)])
    if bits == 16:
        if not (np.abs(tokens) <= HALF_MAX).all():
            raise ValueError(f"a token is not finite or above {HALF_MAX:.0f}, the float16 maximum")
        scales = np.zeros(0, np.uint16)
        values = columns.pack_column(tokens.astype("<f2").view("<u2").ravel(), 2)
    elif transform is not None:
        symbols, half = _spread(tokens, bits, transform)
        folded = packing.fold(symbols)
        scales = half.astype("<f2").view("<u2")
        values = coder.encode([folded[:, group].ravel() for group in transform.groups])
    else:
        symbols, half = quantize(tokens, bits)
        scales, values = half.astype("<f2").view("<u2"), _pack_symbols(symbols.ravel(), bits)
    table, packed = pack_samples(samples)
    head = _HEAD.pack(batch.device, batch.round, batch.version, len(samples), width, bits) + table
    packed.append(columns.pack_column(np.asarray(scales, np.int64), 2))
    named = [] if transform is None or bits == 16 else [transform.digest]
    return pack(Kind.TOKEN_BATCH, head, *packed, values, *named)


def _pack_symbols(symbols: NDArray[np.int8], bits: int) -> bytes:
    folded = packing.fold(symbols.astype(np.int16)).astype(np.uint8)
    if bits == 8:
        return columns.pack_column(folded, 1)
    raw = bytes((columns.RAW,)) + (_threes(folded) if bits == 3 else packing.pack_nibbles(folded))
    coded = bytes((columns.CODED,)) + coder.encode([folded])
    return min(raw, coded, key=len)


def _threes(folded: NDArray[np.uint8]) -> bytes:
    return np.packbits(folded[:, None] >> np.array([2, 1, 0], np.uint8) & 1).tobytes()


def _unpack_symbols(data: bytes, count: int, bits: int) -> NDArray[np.int8]:
    if bits < 8 and data[:1] == bytes((columns.RAW,)):
        if bits == 3:
            packed = packing.packed_row(data[1:], 3 * count, "values")
            folded = np.unpackbits(packed, count=3 * count).reshape(count, 3) @ np.array([4, 2, 1], np.uint8)
        else:
            folded = packing.unpack_nibbles(data[1:], count, "values")
    else:
        folded = columns.unpack_column(data, count, 1, "values")
    if folded.max(initial=0) > 2**bits - 2:
        raise FrameError(f"values: symbol {folded.max()} is beyond {bits} bits")
    return packing.unfold(folded.astype(np.int16)).astype(np.int8)


def decode(
    data: bytes,
    fits: Fits,
    width: int,
    vocab: int,
    max_bytes: int,
    *,
    limits: Limits = LOOSE,
    transform: Transform | None = None,
    bits: int | None = None,
) -> Batch:
    """The batch of a TOKEN_BATCH frame, tokens as the quantiser defines them.

    Memory is bounded by the arguments alone, about `samples * (kept * width * 14 + (question + answer) * 50)`
    bytes (50 instead of 14 with a transform) of the limits, whatever the frame claims.

    Args:
        data: the frame.
        fits: which grids a picture of this pair can have.
        width: D of this pair.
        vocab: ids must lie below it.
        max_bytes: a longer frame is refused unread.
        limits: of the run.
        transform: the pair's, for frames that name it; others do not need it, unless `bits` is given.
        bits: those of the run: a frame in another precision or another coding is refused. None = any.

    Raises:
        FrameError: a frame that names another transform than this one; anything about it that `encode` would
            not have written for these arguments.
    """
    head, *sections = unpack(data, Kind.TOKEN_BATCH, max_bytes) or [b""]
    if len(head) < _HEAD.size or len(sections) not in (SECTIONS - 1, SECTIONS):
        raise FrameError(
            f"token batch: {len(sections) + 1} sections, head of {len(head)} bytes; "
            f"expected {SECTIONS} or {SECTIONS + 1}, and at least {_HEAD.size}"
        )
    device, round_, version, count, found, precision = _HEAD.unpack_from(head)
    if found != width:
        raise FrameError(f"token batch: made for tokens of width {found}, this pair has {width}")
    allowed = BITS if bits is None else (bits,)
    if precision not in allowed:
        raise FrameError(f"token batch: {precision} bits per value; allowed: {', '.join(map(str, allowed))}")
    named = sections[SECTIONS - 1] if len(sections) == SECTIONS else None
    if named is None:
        if bits is not None and bits < 16 and transform is not None:
            raise FrameError(f"token batch: no transform; this run has {transform.digest.hex()}")
        transform = None
    elif transform is None or named != transform.digest or precision == 16:
        raise FrameError(
            f"token batch: {precision} bits with transform {named[:DIGEST_BYTES].hex()}; this "
            f"pair has {transform.digest.hex() if transform else 'none'}"
        )
    table = head[_HEAD.size :]
    rows = unpack_samples(table, sections, count, fits, vocab, limits, "token batch")
    at = np.concatenate(([0], np.cumsum([len(row.positions) for row in rows], dtype=np.int64)))
    tokens = _tokens(sections, int(at[-1]), width, precision, transform)
    samples = tuple(replace(row, tokens=tokens[at[i] : at[i + 1]]) for i, row in enumerate(rows))
    return Batch(device, round_, version, samples)


def _gather(data: bytes, total: int, width: int, bits: int, transform: Transform) -> NDArray[np.integer]:
    """Symbols (total, D) of the components, from one stream for each group of them."""
    widths = [group.stop - group.start for group in transform.groups]
    streams = coder.decode(data, [total * w for w in widths])
    folded = np.concatenate([s.reshape(total, w) for s, w in zip(streams, widths, strict=True)], axis=1)
    symbols = packing.unfold(folded)
    if np.abs(symbols).max(initial=0) > _highest(width, bits):
        raise FrameError(f"values: symbol {np.abs(symbols).max()}; allowed: up to {_highest(width, bits)}")
    return symbols


def _tokens(
    sections: Sequence[bytes], total: int, width: int, bits: int, transform: Transform | None
) -> NDArray[np.float32]:
    scales = columns.unpack_column(sections[_SCALES], 0 if bits == 16 else total, 2, "scales")
    scales = scales.astype("<u2").view("<f2")
    if bits == 16:
        halves = columns.unpack_column(sections[_VALUES], total * width, 2, "values")
        tokens = halves.astype("<u2").view("<f2").astype(np.float32).reshape(total, width)
    else:
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise FrameError("token batch: a scale is negative or not finite")
        if transform is None:
            symbols = _unpack_symbols(sections[_VALUES], total * width, bits).reshape(total, width)
            tokens = dequantize(symbols, scales)
        else:
            symbols = _gather(sections[_VALUES], total, width, bits, transform)
            tokens = transform.inverse(dequantize(symbols, scales))
    if not np.isfinite(tokens).all():
        raise FrameError("token batch: a token is not finite")
    return tokens
