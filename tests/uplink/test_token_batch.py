"""Claims about the uplink unit: exact but for the declared error of the values, closed to hostile bytes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.models.transform import Transform, estimate
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.sample import Batch, Limits, Sample
from cdc_flower.uplink.token_batch import decode, encode
from cdc_flower.wire import coder, columns
from cdc_flower.wire.frame import FrameError, Kind, pack, unpack

N, D, VOCAB = 16, 6, 50
GRID, WIDE = (N, 4, 4), (N, 2, 8)


def fits(grid):
    return grid in (GRID, WIDE)


def made(index, positions, tokens, question, answer, doubt, grid=GRID):
    return Sample(index, grid, positions, question, answer, doubt, tokens=tokens)


VALUE = st.floats(-60000, 60000, width=32) | st.sampled_from([0.0, -0.0, 1e-45, 6e-8, 65504.0])
IDS = st.lists(st.integers(0, VOCAB - 1), max_size=8)


@st.composite
def batches(draw):
    samples = []
    for index in draw(st.lists(st.integers(0, 30), unique=True, max_size=4)):
        where = sorted(draw(st.sets(st.integers(0, N - 1))))
        values = draw(st.lists(VALUE, min_size=len(where) * D, max_size=len(where) * D))
        tokens = np.array(values, np.float32).reshape(len(where), D)
        samples.append(
            made(
                index,
                np.array(where, np.uint16),
                tokens,
                draw(IDS),
                draw(IDS),
                draw(st.floats(0, 100)),
                draw(st.sampled_from([GRID, WIDE])),
            )
        )
    number = st.integers(0, 2**32 - 1)
    return Batch(draw(number), draw(number), draw(number), tuple(samples))


@given(batches(), st.sampled_from(token_batch.BITS))
def test_a_batch_comes_back(batch, bits):
    data = encode(batch, D, bits)
    back = decode(data, fits, D, VOCAB, len(data))
    assert (back.device, back.round, back.version) == (batch.device, batch.round, batch.version)
    assert data == encode(batch, D, bits)
    for a, b in zip(batch.samples, back.samples, strict=True):
        assert (a.index, a.grid) == (b.index, b.grid)
        assert a.positions.tolist() == b.positions.tolist()
        assert b.positions.dtype == np.uint16
        assert list(a.question_ids) == b.question_ids
        assert list(a.answer_ids) == b.answer_ids
        assert b.uncertainty == float(np.float16(a.uncertainty))
        _assert_tokens(a.tokens, b.tokens, bits)


def _assert_tokens(sent, got, bits):
    assert got.dtype == np.float32
    if bits == 16:
        assert got.tobytes() == sent.astype(np.float16).astype(np.float32).tobytes()
        return
    symbols, scales = token_batch.quantize(sent, bits)
    assert np.array_equal(got, symbols.astype(np.float32) * scales.astype(np.float32)[:, None])
    error = np.abs(sent.astype(np.float64) - got.astype(np.float64))
    assert (error <= scales.astype(np.float64)[:, None] / 2 * (1 + 1e-12)).all()


@given(st.lists(VALUE, min_size=D, max_size=D), st.sampled_from([3, 4, 8]))
def test_the_scale_is_the_smallest_half_that_reaches_the_largest_value(values, bits):
    tokens = np.array([values], np.float32)
    _, (scale,) = token_batch.quantize(tokens, bits)
    levels, peak = 2 ** (bits - 1) - 1, float(np.abs(tokens).max())
    assert float(scale) * levels >= peak * (1 - 1e-15)
    below = float(np.nextafter(scale, np.float16(0)))
    assert scale == 0 or below * levels < peak


@given(st.lists(VALUE, min_size=D, max_size=D), st.sampled_from([(3, 3), (4, 7), (8, 127)]))
def test_the_error_is_within_the_declared_share_of_the_largest_value(values, kind):
    bits, levels = kind
    sample = dataclasses.replace(GOOD, positions=np.array([3]), tokens=np.array([values], np.float32))
    (back,) = decode(_frame(bits, (sample,)), fits, D, VOCAB, 1000).samples
    peak = float(np.abs(sample.tokens).max())
    error = np.abs(back.tokens.astype(np.float64) - sample.tokens.astype(np.float64)).max()
    assert error <= peak * (1 + 2**-10) / (2 * levels) * (1 + 1e-12) + 2**-25


def test_dropped_tokens_are_absent_not_zeroed():
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((64, 128)).astype(np.float32)
    few = np.arange(0, 64, 8, dtype=np.uint16)
    sizes = [
        len(encode(Batch(0, 1, 0, (made(0, p, whole[p], [1], [2], 0.0, (64, 8, 8)),)), 128, 8))
        for p in (few, np.arange(64, dtype=np.uint16))
    ]
    assert sizes[0] < sizes[1] / 5


def test_an_empty_batch_is_legal_and_small():
    data = encode(Batch(1, 2, 3, ()), D, 8)
    assert len(data) < 100
    assert decode(data, fits, D, VOCAB, 100).samples == ()


def test_coding_saves_on_tokens_of_the_usual_shape():
    rng = np.random.default_rng(0)
    where = np.arange(16, dtype=np.uint16)
    samples = tuple(
        made(i, where, rng.standard_normal((16, 128)).astype(np.float32), [1, 2, 3], [7], 0.1)
        for i in range(32)
    )
    sizes = {bits: len(encode(Batch(0, 1, 0, samples), 128, bits)) for bits in token_batch.BITS}
    assert sizes[3] < 0.83 * 32 * 16 * 48
    assert sizes[4] < 0.91 * 32 * 16 * 64
    assert sizes[8] < 0.98 * 32 * 16 * 128
    assert sizes[16] < 32 * 16 * 256


def turned(seed=0):
    """A transform of tokens of width D: random axes."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((D, D)))
    mean, axes = np.arange(D, dtype=np.float32), axes.astype(np.float32)
    return Transform(mean, axes, 4.0 ** -np.arange(D, dtype=np.float32))


@given(batches(), st.sampled_from([3, 4, 8]))
def test_a_transformed_batch_comes_back_within_the_declared_length_of_error(batch, bits):
    turn = turned()
    data = encode(batch, D, bits, turn)
    back = decode(data, fits, D, VOCAB, len(data), transform=turn)
    assert data == encode(batch, D, bits, turn)
    for a, b in zip(batch.samples, back.samples, strict=True):
        assert a.positions.tolist() == b.positions.tolist()
        peak = np.abs(a.tokens - turn.mean).max(axis=1, initial=0).astype(np.float64)
        error = np.linalg.norm(a.tokens.astype(np.float64) - b.tokens, axis=1)
        bound = np.sqrt(D) * (peak * (1 + 2**-10) / (2 * (2 ** (bits - 1) - 1)) + 2**-25)
        assert (error <= bound + 1e-6 * (peak + D)).all()  # and what float32 axes and tokens round
        one = encode(Batch(0, 1, 0, (a,)), D, bits, turn)
        text = len(a.question_ids) + len(a.answer_ids)
        assert len(one) <= token_batch.sample_bytes(len(a.positions), D, bits, text, transformed=True)


@given(batches(), st.sampled_from(token_batch.BITS))
def test_a_sample_is_no_longer_than_declared(batch, bits):
    for sample in batch.samples:
        text = len(sample.question_ids) + len(sample.answer_ids)
        data = encode(Batch(0, 1, 0, (sample,)), D, bits)
        assert len(data) <= token_batch.sample_bytes(len(sample.positions), D, bits, text)


def test_a_transform_saves_on_correlated_tokens_at_less_error():
    rng = np.random.default_rng(0)
    width = 64
    few, noise = rng.standard_normal((600, 4)), 0.1 * rng.standard_normal((600, width))
    tokens = (few @ rng.standard_normal((4, width)) + noise).astype(np.float32)
    axes = estimate(tokens[:300, None])
    sample = made(0, np.arange(300), tokens[300:], [], [], 0.0, (300, 10, 30))
    sizes, errors = [], []
    for transform in (None, axes):
        data = encode(Batch(0, 1, 0, (sample,)), width, 4, transform)
        (back,) = decode(data, lambda grid: grid[0] == 300, width, 1, 10**5, transform=transform).samples
        sizes.append(len(data))
        errors.append(np.linalg.norm(back.tokens - sample.tokens))
    assert sizes[1] < 0.5 * sizes[0]
    assert errors[1] < errors[0]


def test_float16_is_sent_as_it_is_whatever_the_transform():
    assert encode(Batch(0, 1, 0, (GOOD,)), D, 16, turned()) == _frame(16)


@pytest.mark.parametrize("reader", [None, turned(1)])
def test_a_reader_without_the_transform_of_a_frame_refuses_it(reader):
    data = encode(Batch(0, 1, 0, (GOOD,)), D, 4, turned())
    with pytest.raises(FrameError, match=f"transform {turned().digest.hex()}; this pair has"):
        decode(data, fits, D, VOCAB, 1000, transform=reader)


def test_a_reader_with_a_transform_reads_frames_without_one():
    (back,) = decode(_frame(4), fits, D, VOCAB, 1000, transform=turned()).samples
    np.testing.assert_array_equal(back.tokens, decode(_frame(4), fits, D, VOCAB, 1000).samples[0].tokens)


def test_a_component_beyond_what_a_token_can_have_is_refused():
    sections = unpack(encode(Batch(0, 1, 0, (GOOD,)), D, 4, turned()), Kind.TOKEN_BATCH, 1000)
    widths = [g.stop - g.start for g in turned().groups]
    sections[11] = coder.encode([np.full(2 * w, 40) for w in widths])
    with pytest.raises(FrameError, match="symbol 20; allowed: up to 19"):
        decode(pack(Kind.TOKEN_BATCH, *sections), fits, D, VOCAB, 1000, transform=turned())
    sections[11] = coder.encode([np.full(2 * w, 2) for w in widths])[:-1]
    with pytest.raises(FrameError, match="coded integers"):
        decode(pack(Kind.TOKEN_BATCH, *sections), fits, D, VOCAB, 1000, transform=turned())


GOOD = made(0, np.array([1, 5], np.uint16), np.ones((2, D), np.float32), [1, 2], [3], 0.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"positions": np.array([5, 1])}, "rise strictly within 0..15"),
        ({"positions": np.array([1, 1])}, "rise strictly"),
        ({"positions": np.array([1, N])}, "rise strictly"),
        ({"positions": np.array([1])}, "tokens"),
        ({"tokens": np.ones((2, D + 1), np.float32)}, "D 6"),
        ({"tokens": np.full((2, D), np.nan, np.float32)}, "not finite"),
        ({"tokens": np.full((2, D), np.inf, np.float32)}, "not finite"),
        ({"tokens": np.full((2, D), 3e38, np.float32)}, "no float16 scale"),
        ({"question_ids": [-1]}, "question ids"),
        ({"answer_ids": [2**31]}, "answer ids"),
        ({"uncertainty": float("nan")}, "uncertainty nan"),
    ],
)
def test_what_the_reader_would_refuse_is_not_sent(change, says):
    sample = dataclasses.replace(GOOD, **change)
    with pytest.raises(ValueError, match=says):
        encode(Batch(0, 1, 0, (sample,)), D, 8)


def test_only_known_widths_of_values_are_sent():
    with pytest.raises(ValueError, match="5 bits per value; allowed: 3, 4, 8, 16"):
        encode(Batch(0, 1, 0, ()), D, 5)


def _frame(bits=8, samples=(GOOD,)):
    return encode(Batch(0, 1, 0, tuple(samples)), D, bits)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"fits": lambda grid: grid == WIDE}, "16 tokens in 4 x 4, which this pair has not"),
        ({"width": 7}, "width 6, this pair has 7"),
        ({"vocab": 2}, "question ids up to 2; allowed: 0..1"),
        ({"vocab": 3}, "answer ids up to 3; allowed: 0..2"),
        ({"max_bytes": 20}, "too long"),
        ({"limits": Limits(samples=0)}, "1 samples; allowed: 0"),
        ({"limits": Limits(question=1)}, "question lengths up to 2; allowed: 0..1"),
    ],
)
def test_the_readers_limits_hold(limits, says):
    arguments = {"fits": fits, "width": D, "vocab": VOCAB, "max_bytes": 1000} | limits
    with pytest.raises(FrameError, match=says):
        decode(_frame(), **arguments)


def _with(section, data, bits=8):
    sections = unpack(_frame(bits), Kind.TOKEN_BATCH, 10**6)
    sections[section] = data
    return pack(Kind.TOKEN_BATCH, *sections)


def _halves(*values):
    return columns.pack_column(np.array(values, "<f2").view("<u2"), 2)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (_with(0, b"short"), "head of 5 bytes"),
        (_with(3, columns.pack_column(np.array([17]), 2)), "17 tokens kept of 16"),
        (_with(6, _halves(np.nan)), "uncertainty is not finite"),
        (_with(7, columns.pack_column(np.array([15, 0]), 2)), "position 16 beyond"),
        (_with(10, _halves(np.inf, 1)), "scale is negative or not finite"),
        (_with(10, _halves(-1, 1)), "scale is negative or not finite"),
        (_with(11, b"\x00" + b"\xff" * 12), "symbol 255 is beyond 8 bits"),
        (_with(11, b"\x00" + b"\x0f" * 6, bits=4), "symbol 15 is beyond 4 bits"),
        (_with(11, b"\x00" + b"\x0f" * 5, bits=4), "5 bytes for 12 symbols of 4 bits"),
        (_with(11, b"\x00" + b"\xff" * 4 + b"\xf0", bits=3), "symbol 7 is beyond 3 bits"),
        (_with(11, b"\x00" + b"\x00" * 4 + b"\x01", bits=3), "values: padding that is not zero"),
        (_with(11, b"\x00" + b"\x00" * 4, bits=3), "4 bytes for 36 bits"),
        (_with(11, _halves(*[np.inf] * 12), bits=16), "token is not finite"),
        (pack(Kind.TOKEN_BATCH), "1 sections, head of 0 bytes"),
        (pack(Kind.UPDATE), "expected 1"),
    ],
)
def test_a_well_formed_frame_with_a_bad_column_is_refused(frame, says):
    with pytest.raises(FrameError, match=says):
        decode(frame, fits, D, VOCAB, 10**6)


def test_pictures_of_different_grids_go_in_one_frame_and_each_bounds_its_own_positions():
    few = made(1, np.array([0, 3], np.uint16), np.ones((2, D), np.float32), [1], [2], 0.0, (4, 2, 2))
    data = _frame(samples=(GOOD, few, dataclasses.replace(GOOD, index=2)))

    def both(grid):
        return grid in (GRID, (4, 2, 2))

    assert [s.grid for s in decode(data, both, D, VOCAB, 1000).samples] == [GRID, (4, 2, 2), GRID]
    sections = unpack(data, Kind.TOKEN_BATCH, 1000)
    sections[1] = columns.pack_column(np.array([1, 0, 0]), 1)
    with pytest.raises(FrameError, match="position 5 beyond"):
        decode(pack(Kind.TOKEN_BATCH, *sections), both, D, VOCAB, 1000)
    sections[1] = columns.pack_column(np.array([0, 0, 0]), 1)
    with pytest.raises(FrameError, match="a grid that no sample has"):
        decode(pack(Kind.TOKEN_BATCH, *sections), both, D, VOCAB, 1000)


def test_a_sample_counted_twice_is_refused():
    with pytest.raises(FrameError, match="one sample twice"):
        decode(_frame(samples=(GOOD, GOOD)), fits, D, VOCAB, 1000)


def test_a_device_does_not_choose_its_own_coding():
    """Where the run's bits are said, no other precision is read, and nothing without the run's transform."""
    turn, mine = turned(), Batch(0, 1, 0, (GOOD,))
    own = encode(mine, D, 3, turn)
    assert len(decode(own, fits, D, VOCAB, 1000, transform=turn, bits=3).samples) == 1
    for bits in (4, 8, 16):
        with pytest.raises(FrameError, match=f"{bits} bits per value; allowed: 3$"):
            decode(encode(mine, D, bits, turn), fits, D, VOCAB, 1000, transform=turn, bits=3)
    with pytest.raises(FrameError, match="no transform; this run has"):
        decode(_frame(3), fits, D, VOCAB, 1000, transform=turn, bits=3)
    exact = encode(mine, D, 16, turn)
    assert len(decode(exact, fits, D, VOCAB, 1000, transform=turn, bits=16).samples) == 1
