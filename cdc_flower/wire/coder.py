"""Entropy coding of integers, for both directions: one ANS stream of tokens, and their raw bits.

The tokens and their models are those of `wire.coder_models`. The coding itself is `constriction`'s ANS coder,
whose bitstream is stable by its own promise. Anchor: within 0.5 % of the empirical entropy from a few
thousand symbols on.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire.coder_models import (
    DIRECT,
    MAX_TOKEN,
    MAX_VALUE,
    WIDTHS,
    Share,
    choose,
    read_model,
    table_bytes,
    tokens_of,
    weights_of,
)
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.packing import BitWriter, packed_row, read_bits

_STREAM: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]  (a compiled module)
_PART = 2**15  # tokens coded together
_WIDTHS64 = WIDTHS.astype(np.int64)


class Stream:
    """Integers in 0..2**31-1 on their way into a payload, added in parts; kept as tokens and raw bits."""

    def __init__(self, values: NDArray[np.integer] | None = None):
        self.counts = np.zeros(MAX_TOKEN, np.int64)
        self.total = 0
        self.parts: list[NDArray[np.uint8]] = []
        self.large: dict[int, list[NDArray[np.unsignedinteger]]] = {}
        if values is not None:
            self.add(values)

    def add(self, values: NDArray[np.integer]) -> None:
        """Append values (n,).

        Raises:
            ValueError: a value outside 0..2**31-1.
        """
        if not len(values):
            return
        highest = int(values.max())
        if values.min() < 0 or highest > MAX_VALUE:
            raise ValueError(f"integers to code must lie in 0..{MAX_VALUE}")
        token = tokens_of(values)
        self.parts.append(token)
        self.counts += np.bincount(token, minlength=MAX_TOKEN)
        self.total += int(values.sum(dtype=np.int64))
        if highest < DIRECT:
            return
        large = np.flatnonzero(token >= DIRECT)
        width = WIDTHS[token[large]]
        large = large[np.argsort(width, kind="stable")]
        sorted_, start = values[large], 0
        for w, n in enumerate(np.bincount(width).tolist()):
            if n:
                narrow = "<u1" if w <= 8 else "<u2" if w <= 16 else "<u4"
                self.large.setdefault(w, []).append(sorted_[start : start + n].astype(narrow))
                start += n

    @property
    def raw_bits(self) -> int:
        """Bits that follow the tokens."""
        return int(self.counts @ _WIDTHS64)

    def write_raw(self, row: BitWriter) -> None:
        """Append the raw bits: for each width from small to large its values in order, lowest bit first."""
        for w in sorted(self.large):
            for some in self.large[w]:
                by_byte = some.view(np.uint8).reshape(len(some), -1)
                row.add(np.unpackbits(by_byte, axis=1, count=w, bitorder="little").ravel())


def information(values: NDArray[np.integer], share: Share | None = None) -> float:
    """Bits that a stream of at least one value takes in `encode`: its model, its tokens, its raw bits; the
    rounding of the whole payload to words not counted."""
    stream = Stream(np.asarray(values))
    return choose(stream.counts, stream.total, share)[0] + stream.raw_bits


def encode(streams: Sequence[NDArray[np.integer] | Stream], shares: Sequence[Share] | None = None) -> bytes:
    """Code several streams of integers in 0..2**31-1, each with its own model, into one payload.

    The lengths of the streams are not stored; the reader must know them. Empty streams cost nothing.

    Args:
        streams: the integers.
        shares: the expected share of zeros of each stream, which the reader must know too; with it a model
            may be geometric, without it every model is a table.

    Raises:
        ValueError: a value outside 0..2**31-1.
    """
    tables, jobs, row = [], [], BitWriter()
    for k, values in enumerate(streams):
        stream = values if isinstance(values, Stream) else Stream(np.asarray(values))
        if not stream.parts:
            continue
        share = shares[k] if shares is not None else None
        one_way = share is None
        model = table_bytes(stream.counts) if one_way else choose(stream.counts, stream.total, share)[1]
        tables.append(model)
        if model[0] >= MAX_TOKEN or model[1] > 1:
            first, weights = weights_of(model, share)
            jobs.append((stream.parts, first, _categorical(weights)))
        stream.write_raw(row)
    coder = _STREAM.stack.AnsCoder()
    for parts, first, model in reversed(jobs):
        for token in reversed(parts):
            for start in range((len(token) - 1) // _PART * _PART, -1, -_PART):
                coder.encode_reverse(token[start : start + _PART].astype(np.int32) - np.int32(first), model)
    words = coder.get_compressed().astype("<u4", copy=False).tobytes()
    return b"".join((*tables, struct.pack("<I", len(words) // 4), words, row.tobytes()))


def _categorical(weights: NDArray[np.float64]) -> Any:
    return _STREAM.model.Categorical(weights, perfect=False)


class Reader:
    """The integers of one stream of a payload, read in parts."""

    def __init__(
        self, tokens: NDArray[np.uint8], counts: NDArray[np.int64], raw: NDArray[np.uint8], start: int
    ):
        """
        Args:
            tokens: (n,) of all values.
            counts: (124,) of each token.
            raw: the packed row of raw bits.
            start: of this stream's bits in it.
        """
        self._tokens, self._raw, self._at = tokens, raw, 0
        bits = np.bincount(WIDTHS, counts * _WIDTHS64).astype(np.int64)
        self._bit = (start + np.cumsum(bits) - bits).tolist()  # where the next bits of each width are

    def __len__(self) -> int:
        """Values not yet read."""
        return len(self._tokens) - self._at

    def take(self, n: int) -> NDArray[np.int64]:
        """The next `n` values, or as many as there are."""
        token = self._tokens[self._at : self._at + n]
        self._at += len(token)
        values = token.astype(np.int64)
        large = np.flatnonzero(token >= DIRECT)
        if not len(large):
            return values
        width = WIDTHS[token[large]]
        for w in np.flatnonzero(np.bincount(width)).tolist():
            chosen = large[width == w]
            bits = read_bits(self._raw, self._bit[w], len(chosen) * w).reshape(-1, w)
            self._bit[w] += bits.size
            low = np.packbits(bits, axis=1, bitorder="little")
            whole = np.zeros((len(chosen), 4), np.uint8)
            whole[:, : low.shape[1]] = low
            values[chosen] = (4 + (values[chosen] & 3) << w) | whole.view("<u4")[:, 0]
        return values


def decode(
    data: bytes | memoryview, counts: Sequence[int], shares: Sequence[Share] | None = None
) -> list[NDArray[np.int64]]:
    """The streams `encode` was given; `counts` are their lengths, which the caller has bounded.

    Args:
        data: what `encode` gave.
        counts: values of each stream.
        shares: what `encode` was given.

    Raises:
        FrameError: bytes that `encode` cannot have written for these lengths.
    """
    return [reader.take(len(reader)) for reader in readers(data, counts, shares)]


def readers(
    data: bytes | memoryview, counts: Sequence[int], shares: Sequence[Share] | None = None
) -> list[Reader]:
    """As `decode`, with everything checked, for reading the values in parts. They keep a byte a value."""
    at, models = 0, []
    for k, count in enumerate(counts):
        share = shares[k] if shares is not None else None
        model = read_model(data, at, share) if count else b""
        at += len(model)
        models.append((model, share))
    if len(data) < at + 4:
        raise FrameError("coded integers: cut short before the coded words")
    (n_words,) = struct.unpack_from("<I", data, at)
    at += 4
    if len(data) < at + 4 * n_words:
        raise FrameError("coded integers: cut short within the coded words")
    words = np.frombuffer(data, "<u4", n_words, at).astype(np.uint32)
    tokens = _decode_tokens(words, models, counts)
    bits = [int(n @ _WIDTHS64) for _, n in tokens]
    raw = packed_row(data[at + 4 * n_words :], sum(bits), "coded integers: raw bits")
    starts = [sum(bits[:k]) for k in range(len(bits))]
    return [Reader(token, n, raw, start) for (token, n), start in zip(tokens, starts, strict=True)]


def _decode_tokens(words, models, counts) -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The tokens of each stream, and how often each occurs (124,)."""
    try:
        coder = _STREAM.stack.AnsCoder(words)
    except ValueError as err:
        raise FrameError(f"coded integers: {err}") from None
    found = []
    for (model, share), count in zip(models, counts, strict=True):
        tokens, each = np.empty(count, np.uint8), np.zeros(MAX_TOKEN, np.int64)
        if count and model[0] < MAX_TOKEN and model[1] == 1:
            tokens[:], each[model[0]] = model[0], count
        elif count:
            first, weights = weights_of(model, share)
            categorical = _categorical(weights)
            for start in range(0, count, _PART):
                part = coder.decode(categorical, min(count - start, _PART))
                tokens[start : start + _PART] = part
                each[first : first + len(weights)] += np.bincount(part, minlength=len(weights))
            if each[first : first + len(weights)][weights == 0].any():
                raise FrameError("coded integers: a token its table calls absent")
            tokens += np.uint8(first)
        found.append((tokens, each))
    if not coder.is_empty():
        raise FrameError("coded integers: words left over after the last token")
    return found
