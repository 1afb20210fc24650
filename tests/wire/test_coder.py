"""Claims about the entropy coder: exact, near the entropy, and hostile bytes are a FrameError."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc_flower.wire import coder, coder_models
from cdc_flower.wire.frame import FrameError

STREAM = st.lists(st.integers(0, coder_models.MAX_VALUE), max_size=60)


@given(st.lists(STREAM, max_size=5))
@example([[0], [], [coder_models.MAX_VALUE], [15, 16, 17, 31, 32, 2**20 - 1, 2**20]])
def test_streams_come_back_exactly(streams):
    data = coder.encode([np.array(s, np.int64) for s in streams])
    back = coder.decode(data, [len(s) for s in streams])
    assert [b.tolist() for b in back] == streams
    assert data == coder.encode([np.array(s, np.int64) for s in streams])


@given(STREAM.filter(bool))
def test_tokens_and_widths_are_those_of_the_definition(values):
    token = coder_models.tokens_of(np.array(values, np.int64))
    width = coder_models.WIDTHS[token]
    for v, t, w in zip(values, token.tolist(), width.tolist(), strict=True):
        octave = v.bit_length() - 1
        expected = (v, 0) if v < 16 else (16 + 4 * (octave - 4) + (v >> (octave - 2)) - 4, octave - 2)
        assert (t, w) == expected


@pytest.mark.parametrize("density", [0.5, 0.1, 0.01])
def test_gaps_cost_at_most_one_percent_above_the_positions_limit(density):
    rng = np.random.default_rng(0)
    n = 200_000
    mask = rng.random(n) < density
    where = np.flatnonzero(mask)
    limit = n * _entropy([density, 1 - density]) / 8
    assert len(coder.encode([np.diff(where, prepend=-1) - 1])) < 1.01 * limit + 60


@pytest.mark.parametrize("scale", [0.5, 5.0, 500.0])
def test_geometric_values_cost_at_most_one_percent_above_their_entropy(scale):
    rng = np.random.default_rng(1)
    values = np.floor(rng.exponential(scale, 100_000)).astype(np.int64)
    counts = np.unique(values, return_counts=True)[1] / len(values)
    table = 64
    assert len(coder.encode([values])) < 1.01 * len(values) * _entropy(counts) / 8 + table


def _entropy(shares):
    shares = np.asarray(shares)
    return float(-(shares * np.log2(shares)).sum())


def test_values_outside_the_range_are_not_coded():
    for bad in (-1, 2**31):
        with pytest.raises(ValueError, match="must lie in"):
            coder.encode([np.array([bad])])


@given(st.binary(max_size=80), st.lists(st.integers(0, 500), max_size=4))
def test_any_bytes_decode_or_raise_a_frame_error(data, counts):
    try:
        streams = coder.decode(data, counts)
    except FrameError:
        return
    assert [len(s) for s in streams] == counts


SHARE = st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)).map(lambda s: (min(s), max(s)))


@given(st.lists(st.tuples(STREAM, SHARE), max_size=5))
@example([([0] * 50, (1, 1)), ([7, 0, 3], (1, 2)), ([coder_models.MAX_VALUE], (1, 10**6))])
def test_streams_with_expected_shares_come_back_exactly(pairs):
    streams, shares = [np.array(s, np.int64) for s, _ in pairs], [share for _, share in pairs]
    data = coder.encode(streams, shares)
    back = coder.decode(data, [len(s) for s in streams], shares)
    assert [b.tolist() for b in back] == [s.tolist() for s in streams]


def _first_byte(values, share):
    return coder.encode([values], [share])[0]


def test_each_kind_of_model_is_used_where_it_is_smallest():
    rng = np.random.default_rng(0)
    gaps = rng.geometric(0.02, 300) - 1
    assert _first_byte(gaps, (300, 300 + int(gaps.sum()))) == coder_models.GIVEN
    assert coder_models.MAX_TOKEN <= _first_byte(rng.geometric(0.8, 100) - 1, (1, 2)) < coder_models.TWO
    assert _first_byte(rng.geometric(3 / 257, 3000) - 1, (1, 2)) == coder_models.ONE
    mixed = np.where(rng.random(600) < 0.9, 0, rng.geometric(0.05, 600))
    assert _first_byte(mixed, (1, 2)) == coder_models.TWO
    assert _first_byte(rng.integers(5, 9, 10_000), (1, 2)) == 5


@pytest.mark.parametrize(("n", "k"), [(10_000, 50), (10_000, 1500), (10**6, 1000)])
def test_gaps_with_their_share_cost_one_percent_above_the_number_of_choices(n, k):
    where = np.sort(np.random.default_rng(0).choice(n, k, replace=False))
    bits = coder.information(np.diff(where, prepend=-1) - 1, (k, n))
    assert bits <= 1.01 * math.log2(math.comb(n, k)) + 8


@given(STREAM.filter(bool), SHARE)
def test_the_information_of_a_stream_is_its_size_but_for_whole_words(values, share):
    stream = np.array(values, np.int64)
    size = len(coder.encode([stream], [share]))
    slack = 16 if len(values) > 2 else 1  # tables are estimated in whole bytes, 20,000 streams: up to 12 bits
    assert 8 * size - 32 - 72 <= coder.information(stream, share) <= 8 * size - 32 + slack


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cut short"),
        (bytes((coder_models.TWO, 1)), "parameters of a geometric model are cut short"),
        (bytes((coder_models.ONE,)), "parameters of a geometric model are cut short"),
        (bytes((coder_models.GIVEN,)), "before the coded words"),
    ],
)
def test_a_damaged_geometric_model_is_named(data, says):
    with pytest.raises(FrameError, match=says):
        coder.decode(data, [3], [(1, 2)])


def test_geometric_models_are_refused_where_no_share_is_known():
    data = coder.encode([np.zeros(3, np.int64), np.arange(3)], [(1, 2), (1, 2)])
    with pytest.raises(FrameError):
        coder.decode(bytes((coder_models.GIVEN,)) + data[1:], [3, 3])
