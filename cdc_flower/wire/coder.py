"""Entropy coding of integers, for both directions: hybrid tokens, a table of logarithms, one ANS stream.

Every non-negative integer becomes a *token* (its value below 16, above that its octave and quarter of the
octave) and raw low bits. Tokens of one stream share a categorical model whose weights travel as one byte of
log2 each (about 0.0005 bit per token lost, and no assumption on the shape: heavy tails cost nothing extra).
Where a stream comes with its expected share of zeros, a geometric model of no to two bytes may stand for the
table, which for a few hundred integers costs more than it saves.
The coding itself is `constriction`'s ANS coder, whose bitstream is stable by its own promise. All model
arithmetic is on integers, so both ends build the same model on any machine. Anchor: within 0.5 % of the
empirical entropy from a few thousand symbols on.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.packing import BitWriter, packed_row, read_bits

_DIRECT = 16  # values below it are tokens themselves
MAX_TOKEN = _DIRECT + 4 * 27  # values below 2**31
MAX_VALUE = 2**31 - 1
_EIGHTHS = (32768, 35734, 38968, 42495, 46341, 50535, 55109, 60097)  # 2**15 * 2**(k/8)
_WEIGHTS = np.array([0] + [(_EIGHTHS[b & 7] << (b >> 3)) for b in range(255)], dtype=np.float64)
_STREAM: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]  (a compiled module)


Share = tuple[int, int]
"""A probability as numerator and denominator, both positive."""

GIVEN, ONE, TWO = 255, 254, 253  # first bytes of a geometric model: no, one or two parameters follow
_PARAMETERS = {GIVEN: 0, ONE: 1, TWO: 2} | dict.fromkeys(range(MAX_TOKEN, TWO), 0)
_COARSE = TWO - MAX_TOKEN  # first bytes that are their own parameter: a geometric model in one byte
_PRECISION = 24  # bits of a probability in the coder
_UNIT = 44  # bits of a fixed-point probability: its products with a byte are exact in float64
_PART = 2**15  # tokens coded together


def _tokenize(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    octave = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
    token = np.where(values < _DIRECT, values, _DIRECT + 4 * (octave - 4) + (
        (values >> np.maximum(octave - 2, 0)) & 3))
    return token.astype(np.uint8)


_TABLED = 2**16  # values below it have their token looked up
_TOKEN = _tokenize(np.arange(_TABLED))
WIDTHS = np.array([0] * _DIRECT + [2 + t // 4 for t in range(MAX_TOKEN - _DIRECT)], np.uint8)
"""Raw bits of each token, uint8 (124,)."""
_WIDTHS64 = WIDTHS.astype(np.int64)
_LOWEST = [*range(_DIRECT), *((4 + t % 4) << (2 + t // 4) for t in range(MAX_TOKEN - _DIRECT)), MAX_VALUE + 1]


def tokens_of(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Tokens uint8 (n,) of integers in 0..2**31-1."""
    token = np.take(_TOKEN, values, mode="clip")
    if len(values) and values.max() >= _TABLED:
        large = np.flatnonzero(values >= _TABLED)
        token[large] = _tokenize(values[large])
    return token


def table_bytes(counts: NDArray[np.int64]) -> bytes:
    """The model of a stream: first token, number of tokens, one byte of log2 per token (none for a single
    one)."""
    present = np.flatnonzero(counts)
    first, last = int(present[0]), int(present[-1])
    if first == last:
        return bytes((first, 1))
    window = counts[first : last + 1]
    logs = np.zeros(len(window), np.uint8)
    logs[window > 0] = np.clip(np.rint(8 * np.log2(window[window > 0])) + 1, 1, 255)
    return bytes((first, len(window))) + logs.tobytes()


def _exponents(start: int) -> list[list[int]]:
    """Of each token's lowest value over `start`, the places of its one bits, the lowest first."""
    tokens = [max(low - start, 0) for low in _LOWEST]
    return [[min(i, 30) for i in range(32) if exponent >> i & 1] for exponent in tokens]


_ONES = _exponents(0), _exponents(1)


def _geometric(share: Share, start: int = 0) -> NDArray[np.float64]:
    """Weights (124,) of the tokens of v >= start (0 or 1), `P(v >= start + j) = (1 - share)**j`; at least 1.

    In fixed point of integers: the same on every machine.
    """
    p, of = share
    powers = [((of - p) << _UNIT) // of]  # (1 - share)**(2**i), until it is zero
    while powers[-1] and len(powers) < 31:
        powers.append(powers[-1] ** 2 >> _UNIT)
    tails = []
    for places in _ONES[start]:
        if places and places[-1] >= len(powers):
            break
        tail = 1 << _UNIT
        for i in places:
            tail = tail * powers[i] >> _UNIT
        if not tail:
            break
        tails.append(tail)
    weights = np.ones(MAX_TOKEN)
    tails = np.array([*tails, 0.0])[: MAX_TOKEN + 1]  # exact: below 2**53
    np.maximum(tails[:-1] - tails[1:], 1.0, out=weights[: len(tails) - 1])
    weights[:start] = 1.0
    return weights


_one_byte = lru_cache(maxsize=1024)(_geometric)
"""`_geometric` of the shares that one or two bytes name."""


def _weights(model: bytes, share: Share | None) -> tuple[int, NDArray[np.float64]]:
    """The first token and the integral weights of a model's bytes."""
    match model[0]:
        case 255 if share is not None:
            return 0, _geometric(share)
        case 254:
            return 0, _one_byte((model[1] + 1, 257))
        case 253:
            weights = _one_byte((model[2] + 1, 257), 1) * (256 - model[1]) / 257
            weights[0] = float((1 << _UNIT) * (model[1] + 1) // 257)
            return 0, np.maximum(np.floor(weights), 1.0)
        case first if first >= MAX_TOKEN:
            return 0, _one_byte((first - MAX_TOKEN + 1, _COARSE + 1))
    return model[0], _WEIGHTS[np.frombuffer(model[2:], np.uint8)]


def _bits_each(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits of each token, those of weight 0 included, at most what the coder's precision allows."""
    return np.minimum(np.log2(weights.sum()) - np.log2(np.maximum(weights, 1.0)), _PRECISION)


@lru_cache(maxsize=1024)
def _bits_one_byte(share: Share, start: int = 0) -> NDArray[np.float64]:
    return _bits_each(_one_byte(share, start))


def _byte(events: int, trials: int) -> int:
    return min(max(round(257 * events / max(trials, 1)) - 1, 0), 255)


def _choose(counts: NDArray[np.int64], total: int, share: Share | None) -> tuple[float, bytes]:
    """The model of a stream in the fewest bits, model and tokens together, and these bits.

    Args:
        counts: (124,) of each token.
        total: the sum of the stream's values.
        share: the expected share of zeros, known to the reader; None = only a table is allowed.
    """
    table = table_bytes(counts)
    if table[1] == 1:
        found = [(16.0, table)]
    else:
        first, weights = _weights(table, None)
        each = _bits_each(weights)
        found = [(8.0 * len(table) + float(np.dot(counts[first : first + len(each)], each)), table)]
    if share is None:
        return found[0]
    n, zeros = int(counts.sum()), int(counts[0])
    coarse = min(max(round((_COARSE + 1) * n / (n + total)) - 1, 0), _COARSE - 1)
    one, two = _byte(n, n + total), (_byte(zeros, n), _byte(n - zeros, total))
    above = _bits_one_byte((two[1] + 1, 257), 1)
    found += [
        (8.0 + float(np.dot(counts, _bits_each(_geometric(share)))), bytes((GIVEN,))),
        (8.0 + float(np.dot(counts, _bits_one_byte((coarse + 1, _COARSE + 1)))),
         bytes((MAX_TOKEN + coarse,))),
        (16.0 + float(np.dot(counts, _bits_one_byte((one + 1, 257)))), bytes((ONE, one))),
        (24.0 + float(np.dot(counts[1:], above[1:])) + zeros * math.log2(257 / (two[0] + 1))
         + (n - zeros) * math.log2(257 / (256 - two[0])), bytes((TWO, *two))),
    ]
    return min(found, key=lambda f: f[0])


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
        if highest < _DIRECT:
            return
        large = np.flatnonzero(token >= _DIRECT)
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
    return _choose(stream.counts, stream.total, share)[0] + stream.raw_bits


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
        model = _choose(stream.counts, stream.total, share)[1]
        tables.append(model)
        if model[0] >= MAX_TOKEN or model[1] > 1:
            first, weights = _weights(model, share)
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


def _read_model(data: bytes | memoryview, at: int, share: Share | None) -> bytes:
    """The bytes of the model at `at`, checked."""
    if len(data) < at + 1:
        raise FrameError("coded integers: model table is cut short")
    first = data[at]
    if share is not None and first in _PARAMETERS:
        model = bytes(data[at : at + 1 + _PARAMETERS[first]])
        if len(model) < 1 + _PARAMETERS[first]:
            raise FrameError("coded integers: parameters of a geometric model are cut short")
        return model
    if len(data) < at + 2:
        raise FrameError("coded integers: model table is cut short")
    n = data[at + 1]
    if n < 1 or first + n > MAX_TOKEN:
        raise FrameError(f"coded integers: table of {n} tokens from {first}; allowed: 0..{MAX_TOKEN - 1}")
    model = bytes(data[at : at + 2 + (n if n > 1 else 0)])
    if n > 1 and (len(model) < 2 + n or not model[2] or not model[-1]):
        raise FrameError("coded integers: model table is cut short or not tight")
    return model


class Reader:
    """The integers of one stream of a payload, read in parts."""

    def __init__(self, tokens: NDArray[np.uint8], counts: NDArray[np.int64], raw: NDArray[np.uint8],
                 start: int):
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
        large = np.flatnonzero(token >= _DIRECT)
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


def decode(data: bytes | memoryview, counts: Sequence[int],
           shares: Sequence[Share] | None = None) -> list[NDArray[np.int64]]:
    """The streams `encode` was given; `counts` are their lengths, which the caller has bounded.

    Args:
        data: what `encode` gave.
        counts: values of each stream.
        shares: what `encode` was given.

    Raises:
        FrameError: bytes that `encode` cannot have written for these lengths.
    """
    return [reader.take(len(reader)) for reader in readers(data, counts, shares)]


def readers(data: bytes | memoryview, counts: Sequence[int],
            shares: Sequence[Share] | None = None) -> list[Reader]:
    """As `decode`, with everything checked, for reading the values in parts. They keep a byte a value."""
    at, models = 0, []
    for k, count in enumerate(counts):
        share = shares[k] if shares is not None else None
        model = _read_model(data, at, share) if count else b""
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
            first, weights = _weights(model, share)
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
