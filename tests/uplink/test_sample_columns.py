"""Claims about the columns that all uplink frames begin with: they come back, and no column is trusted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.uplink import sample_columns
from cdc_flower.uplink.sample_columns import Row, check, pack_samples, unpack_samples
from cdc_flower.wire import columns
from cdc_flower.wire.frame import FrameError

N, VOCAB = 16, 50
IDS = st.lists(st.integers(0, VOCAB - 1), max_size=8)
PLACES = st.sets(st.integers(0, N - 1)).map(lambda some: np.array(sorted(some), np.uint16))
ROWS = st.lists(
    st.builds(Row, st.integers(0, 30), PLACES, IDS, IDS, st.floats(-70000, 70000)),
    max_size=4,
    unique_by=lambda row: row.index,
)
GOOD = Row(0, np.array([1, 5], np.uint16), [1, 2], [3], 0.5)


def unpack(sections, count=1, **limits):
    given = {"n_tokens": N, "vocab": VOCAB, "max_samples": 31, "max_text": 8} | limits
    return unpack_samples(sections, count, what="test", **given)


@given(ROWS)
def test_rows_come_back(rows):
    sections = pack_samples(rows)
    assert len(sections) == sample_columns.COUNT
    for a, b in zip(rows, unpack(sections, len(rows)), strict=True):
        check(a, N)
        assert (a.index, list(a.positions), a.question_ids, a.answer_ids) == (
            b.index,
            b.positions.tolist(),
            b.question_ids,
            b.answer_ids,
        )
        assert b.positions.dtype == np.uint16
        assert b.uncertainty == float(np.float16(np.clip(a.uncertainty, -65504, 65504)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"positions": np.zeros((1, 1))}, r"positions \(1, 1\)"),
        ({"positions": np.array([5, 1])}, "rise strictly within 0..15"),
        ({"positions": np.array([1, N])}, "rise strictly"),
        ({"positions": np.array([-1, 1])}, "rise strictly"),
        ({"question_ids": [2**31]}, "question ids"),
        ({"answer_ids": [-1]}, "answer ids"),
        ({"uncertainty": float("inf")}, "uncertainty inf"),
    ],
)
def test_a_sample_that_does_not_fit_is_not_sent(change, says):
    with pytest.raises(ValueError, match=f"sample 0: .*{says}"):
        check(dataclasses.replace(GOOD, **change), N)


@pytest.mark.parametrize(
    ("place", "values", "itemsize", "says"),
    [
        (0, [31], 4, "test: index up to 31; allowed: 0..30"),
        (1, [17], 2, "test: tokens kept up to 17; allowed: 0..16"),
        (2, [9], 2, "test: question lengths up to 9; allowed: 0..8"),
        (3, [9], 2, "test: answer lengths up to 9; allowed: 0..8"),
        (4, [0x7C00], 2, "test: an uncertainty is not finite"),
        (5, [15, 0], 2, "test: position 16; allowed: 0..15"),
        (6, [1, 50], 4, "test: question ids up to 50; allowed: 0..49"),
        (7, [50], 4, "test: answer ids up to 50; allowed: 0..49"),
        (7, [1, 2], 4, "answer ids: 8 bytes for 1 integers"),
    ],
)
def test_a_column_beyond_the_limits_is_refused(place, values, itemsize, says):
    sections = pack_samples([GOOD])
    sections[place] = columns.pack_column(np.array(values), itemsize)
    with pytest.raises(FrameError, match=says):
        unpack(sections)


def test_more_samples_than_allowed_or_one_twice_are_refused():
    sections = pack_samples([GOOD, GOOD])
    with pytest.raises(FrameError, match="test: 2 samples; allowed: 1"):
        unpack(sections, 2, max_samples=1)
    with pytest.raises(FrameError, match="test: one sample twice"):
        unpack(sections, 2)
