"""Models of coded integers: tokens, and the bytes that name the weights of a stream's tokens.

Every non-negative integer becomes a *token* (its value below 16, above that its octave and quarter of the
octave) and raw low bits. Tokens of one stream share a categorical model whose weights travel as one byte of
log2 each (about 0.0005 bit per token lost, and no assumption on the shape: heavy tails cost nothing extra).
Where a stream comes with its expected share of zeros, a geometric model of no to two bytes may stand for the
table, which for a few hundred integers costs more than it saves. All arithmetic is on integers, so both ends
build the same model on any machine.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire.frame import FrameError

DIRECT = 16  # values below it are tokens themselves
MAX_TOKEN = DIRECT + 4 * 27  # values below 2**31
MAX_VALUE = 2**31 - 1
_EIGHTHS = (32768, 35734, 38968, 42495, 46341, 50535, 55109, 60097)  # 2**15 * 2**(k/8)
_WEIGHTS = np.array([0] + [(_EIGHTHS[b & 7] << (b >> 3)) for b in range(255)], dtype=np.float64)


Share = tuple[int, int]
"""A probability as numerator and denominator, both positive."""

GIVEN, ONE, TWO = 255, 254, 253  # first bytes of a geometric model: no, one or two parameters follow
_PARAMETERS = {GIVEN: 0, ONE: 1, TWO: 2} | dict.fromkeys(range(MAX_TOKEN, TWO), 0)
_COARSE = TWO - MAX_TOKEN  # first bytes that are their own parameter: a geometric model in one byte
_PRECISION = 24  # bits of a probability in the coder
_UNIT = 44  # bits of a fixed-point probability: its products with a byte are exact in float64


def _tokenize(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    octave = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
    token = np.where(
        values < DIRECT, values, DIRECT + 4 * (octave - 4) + ((values >> np.maximum(octave - 2, 0)) & 3)
    )
    return token.astype(np.uint8)


_TABLED = 2**16  # values below it have their token looked up
_TOKEN = _tokenize(np.arange(_TABLED))
WIDTHS = np.array([0] * DIRECT + [2 + t // 4 for t in range(MAX_TOKEN - DIRECT)], np.uint8)
"""Raw bits of each token, uint8 (124,)."""
_LOWEST = [*range(DIRECT), *((4 + t % 4) << (2 + t // 4) for t in range(MAX_TOKEN - DIRECT)), MAX_VALUE + 1]


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
    window = counts[first : last + 1].tolist()
    return bytes((first, len(window), *map(_log_byte, window)))


@lru_cache(maxsize=2**14)
def _log_byte(count: int) -> int:
    """Eight times the log2 of how often a token occurs, plus 1; 0 for one that does not."""
    return int(np.clip(np.rint(8 * np.log2(count)) + 1, 1, 255)) if count else 0


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


def weights_of(model: bytes, share: Share | None) -> tuple[int, NDArray[np.float64]]:
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


def choose(counts: NDArray[np.int64], total: int, share: Share | None) -> tuple[float, bytes]:
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
        first, weights = weights_of(table, None)
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
        (
            8.0 + float(np.dot(counts, _bits_one_byte((coarse + 1, _COARSE + 1)))),
            bytes((MAX_TOKEN + coarse,)),
        ),
        (16.0 + float(np.dot(counts, _bits_one_byte((one + 1, 257)))), bytes((ONE, one))),
        (
            24.0
            + float(np.dot(counts[1:], above[1:]))
            + zeros * math.log2(257 / (two[0] + 1))
            + (n - zeros) * math.log2(257 / (256 - two[0])),
            bytes((TWO, *two)),
        ),
    ]
    return min(found, key=lambda f: f[0])


def read_model(data: bytes | memoryview, at: int, share: Share | None) -> bytes:
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
