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

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire.frame import FrameError

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


def _tokenize(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    octave = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
    token = np.where(values < _DIRECT, values, _DIRECT + 4 * (octave - 4) + (
        (values >> np.maximum(octave - 2, 0)) & 3))
    return token.astype(np.uint8)


_TABLED = 2**16  # values below it have their token looked up
_TOKEN = _tokenize(np.arange(_TABLED))
WIDTHS = np.array([0] * _DIRECT + [2 + t // 4 for t in range(MAX_TOKEN - _DIRECT)], np.uint8)
"""Raw bits of each token, uint8 (124,)."""
_LOWEST = [*range(_DIRECT), *((4 + t % 4) << (2 + t // 4) for t in range(MAX_TOKEN - _DIRECT)), MAX_VALUE + 1]


def tokens_of(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Tokens uint8 (n,) of integers in 0..2**31-1."""
    token = np.take(_TOKEN, values, mode="clip")
    if len(values) and values.max() >= _TABLED:
        large = np.flatnonzero(values >= _TABLED)
        token[large] = _tokenize(values[large])
    return token


def tokenize(values: NDArray[np.integer]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Tokens uint8 (n,) and the number of raw bits of each, uint8 (n,), of integers in 0..2**31-1."""
    token = tokens_of(values)
    return token, WIDTHS[token]


def _bits(values: NDArray[np.integer], width: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The raw low bits, one block per width in ascending order."""
    large = np.flatnonzero(width)
    values, width, blocks = values[large].astype("<u4"), width[large], []
    for w in np.flatnonzero(np.bincount(width)).tolist():
        some = values[width == w].view(np.uint8).reshape(-1, 4)
        blocks.append(np.unpackbits(some, axis=1, count=w, bitorder="little").ravel())
    return blocks


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


def _powers(share: Share) -> list[int]:
    """The fixed-point powers `(1 - share)**(2**i)` for i = 0..30, in integers: the same on every machine."""
    p, of = share
    powers = [((of - p) << _UNIT) // of]
    for _ in range(30):
        powers.append(powers[-1] ** 2 >> _UNIT)
    return powers


@lru_cache(maxsize=256)
def _geometric(share: Share, start: int = 0) -> NDArray[np.float64]:
    """Weights (124,) of the tokens of v >= start, `P(v >= start + j) = (1 - share)**j`; at least 1."""
    powers, tails = _powers(share), []
    for low in _LOWEST:
        tail, exponent = 1 << _UNIT, max(low - start, 0)
        for i in range(exponent.bit_length()):
            if exponent >> i & 1:
                tail = tail * powers[min(i, 30)] >> _UNIT
        tails.append(tail)
    weights = np.array([max(a - b, 1) for a, b in pairwise(tails)], np.float64)
    weights[:start] = 1.0
    return weights


def _weights(model: bytes, share: Share | None) -> tuple[int, NDArray[np.float64]]:
    """The first token and the integral weights of a model's bytes."""
    match model[0]:
        case 255 if share is not None:
            return 0, _geometric(share)
        case 254:
            return 0, _geometric((model[1] + 1, 257))
        case 253:
            weights = _geometric((model[2] + 1, 257), 1) * (256 - model[1]) / 257
            weights[0] = float((1 << _UNIT) * (model[1] + 1) // 257)
            return 0, np.maximum(np.floor(weights), 1.0)
        case first if first >= MAX_TOKEN:
            return 0, _geometric((first - MAX_TOKEN + 1, _COARSE + 1))
    return model[0], _WEIGHTS[np.frombuffer(model[2:], np.uint8)]


def _bits_of(counts: NDArray[np.int64], model: bytes, share: Share | None) -> float:
    """Bits of a model's bytes and of the tokens under it."""
    if model[0] < MAX_TOKEN and model[1] == 1:
        return 8.0 * len(model)
    first, weights = _weights(model, share)
    some = counts[first : first + len(weights)]
    used = some > 0
    each = np.log2(weights.sum()) - np.log2(weights[: len(some)][used])
    return 8.0 * len(model) + float(np.dot(some[used], np.minimum(each, _PRECISION)))


def model_bytes(counts: NDArray[np.int64], total: int, share: Share | None = None) -> bytes:
    """The model of a stream in the fewest bits, model and tokens together.

    Args:
        counts: of each token.
        total: the sum of the stream's values.
        share: the expected share of zeros, known to the reader; None = only a table is allowed.
    """
    table = table_bytes(counts)
    if share is None or table[1] == 1:
        return table
    n, zeros = int(counts.sum()), int(counts[0])

    def parameter(events: int, trials: int) -> int:
        return min(max(round(257 * events / max(trials, 1)) - 1, 0), 255)

    coarse = min(max(round((_COARSE + 1) * n / (n + total)) - 1, 0), _COARSE - 1)
    models = [table, bytes((GIVEN,)), bytes((MAX_TOKEN + coarse,)), bytes((ONE, parameter(n, n + total))),
              bytes((TWO, parameter(zeros, n), parameter(n - zeros, total)))]
    return min(models, key=lambda m: _bits_of(counts, m, share))


def information(values: NDArray[np.integer], share: Share | None = None) -> float:
    """Bits that a stream of at least one value takes in `encode`: its model, its tokens, its raw bits; the
    rounding of the whole payload to words not counted."""
    token, width = tokenize(np.asarray(values))
    counts = np.bincount(token)
    model = model_bytes(counts, int(values.sum(dtype=np.int64)), share)
    return _bits_of(counts, model, share) + float(width.sum(dtype=np.int64))


def encode(streams: Sequence[NDArray[np.integer]], shares: Sequence[Share] | None = None) -> bytes:
    """Code several streams of integers in 0..2**31-1, each with its own model, into one payload.

    The lengths of the streams are not stored; the reader must know them. Empty streams cost nothing.

    Args:
        streams: the integers.
        shares: the expected share of zeros of each stream, which the reader must know too; with it a model
            may be geometric, without it every model is a table.

    Raises:
        ValueError: a value outside 0..2**31-1.
    """
    tables, jobs, blocks = [], [], []
    for k, stream in enumerate(streams):
        values = np.asarray(stream)
        if not len(values):
            continue
        if values.min() < 0 or values.max() > MAX_VALUE:
            raise ValueError(f"integers to code must lie in 0..{MAX_VALUE}")
        token, width = tokenize(values)
        share = shares[k] if shares is not None else None
        model = model_bytes(np.bincount(token, minlength=1), int(values.sum(dtype=np.int64)), share)
        tables.append(model)
        if model[0] >= MAX_TOKEN or model[1] > 1:
            first, weights = _weights(model, share)
            jobs.append((token.astype(np.int32) - np.int32(first), _categorical(weights)))
        blocks.extend(_bits(values, width))
    coder = _STREAM.stack.AnsCoder()
    for token, model in reversed(jobs):
        coder.encode_reverse(token, model)
    words = coder.get_compressed().astype("<u4").tobytes()
    raw = np.packbits(np.concatenate(blocks)).tobytes() if blocks else b""
    return b"".join((*tables, struct.pack("<I", len(words) // 4), words, raw))


def _categorical(weights: NDArray[np.float64]) -> Any:
    return _STREAM.model.Categorical(weights, perfect=False)


def _read_model(data: bytes, at: int, share: Share | None) -> bytes:
    """The bytes of the model at `at`, checked."""
    if len(data) < at + 1:
        raise FrameError("coded integers: model table is cut short")
    first = data[at]
    if share is not None and first in _PARAMETERS:
        model = data[at : at + 1 + _PARAMETERS[first]]
        if len(model) < 1 + _PARAMETERS[first]:
            raise FrameError("coded integers: parameters of a geometric model are cut short")
        return model
    if len(data) < at + 2:
        raise FrameError("coded integers: model table is cut short")
    n = data[at + 1]
    if n < 1 or first + n > MAX_TOKEN:
        raise FrameError(f"coded integers: table of {n} tokens from {first}; allowed: 0..{MAX_TOKEN - 1}")
    model = data[at : at + 2 + (n if n > 1 else 0)]
    if n > 1 and (len(model) < 2 + n or not model[2] or not model[-1]):
        raise FrameError("coded integers: model table is cut short or not tight")
    return model


def decode(data: bytes, counts: Sequence[int],
           shares: Sequence[Share] | None = None) -> list[NDArray[np.int64]]:
    """The streams `encode` was given; `counts` are their lengths, which the caller has bounded.

    Args:
        data: what `encode` gave.
        counts: values of each stream.
        shares: what `encode` was given.

    Raises:
        FrameError: bytes that `encode` cannot have written for these lengths.
    """
    at, models = 0, []
    for k, count in enumerate(counts):
        if not count:
            models.append(None)
            continue
        share = shares[k] if shares is not None else None
        model = _read_model(data, at, share)
        at += len(model)
        models.append((model, share))
    if len(data) < at + 4:
        raise FrameError("coded integers: cut short before the coded words")
    (n_words,) = struct.unpack_from("<I", data, at)
    at += 4
    if len(data) < at + 4 * n_words:
        raise FrameError("coded integers: cut short within the coded words")
    tokens = _decode_tokens(np.frombuffer(data, "<u4", n_words, at).astype(np.uint32), models, counts)
    total = sum(int(np.bincount(t, minlength=MAX_TOKEN) @ WIDTHS.astype(np.int64)) for t in tokens)
    raw = np.frombuffer(data, np.uint8, offset=at + 4 * n_words)
    if len(raw) != (total + 7) // 8:
        raise FrameError(f"coded integers: {len(raw)} bytes of raw bits, the tokens need {(total + 7) // 8}")
    bits = np.unpackbits(raw, count=total)
    out, start = [], 0
    for token in tokens:
        values = token.astype(np.int64)
        large = np.flatnonzero(token >= _DIRECT)
        width = WIDTHS[token[large]]
        for w in np.flatnonzero(np.bincount(width)).tolist():
            chosen = large[width == w]
            low = np.packbits(bits[start : start + len(chosen) * w].reshape(-1, w), axis=1, bitorder="little")
            whole = np.zeros((len(chosen), 4), np.uint8)
            whole[:, : low.shape[1]] = low
            values[chosen] = (4 + (values[chosen] - _DIRECT) % 4 << w) | whole.view("<u4")[:, 0]
            start += len(chosen) * w
        out.append(values)
    return out


def _decode_tokens(words, models, counts) -> list[NDArray[np.int32]]:
    try:
        coder = _STREAM.stack.AnsCoder(words)
    except ValueError as err:
        raise FrameError(f"coded integers: {err}") from None
    tokens = []
    for some, count in zip(models, counts, strict=True):
        if some is None:
            tokens.append(np.zeros(0, np.int32))
            continue
        model, share = some
        if model[0] < MAX_TOKEN and model[1] == 1:
            tokens.append(np.full(count, model[0], np.int32))
            continue
        first, weights = _weights(model, share)
        token = np.asarray(coder.decode(_categorical(weights), count), np.int32)
        if not weights.all() and not weights[token].all():
            raise FrameError("coded integers: a token its table calls absent")
        tokens.append(token + np.int32(first))
    if not coder.is_empty():
        raise FrameError("coded integers: words left over after the last token")
    return tokens
