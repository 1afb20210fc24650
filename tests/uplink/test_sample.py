"""Claims about the columns that all uplink frames begin with: they come back, and no column is trusted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.uplink.sample import COUNT, Limits, Sample, check, pack_samples, unpack_samples
from cdc_flower.wire import columns
from cdc_flower.wire.frame import FrameError

N, VOCAB = 16, 50
GRIDS = (N, 4, 4), (N, 2, 8), (N, 1, 16)
IDS = st.lists(st.integers(0, VOCAB - 1), max_size=8)
PLACES = st.sets(st.integers(0, N - 1)).map(lambda some: np.array(sorted(some), np.uint16))
ROWS = st.lists(
    st.builds(Sample, st.integers(0, 30), st.sampled_from(GRIDS), PLACES, IDS, IDS, st.floats(-70000, 70000)),
    max_size=4,
    unique_by=lambda row: row.index,
)
GOOD = Sample(0, GRIDS[0], np.array([1, 5], np.uint16), [1, 2], [3], 0.5)


def unpack(packed, count=1, **limits):
    most = Limits(**{"samples": 31, "question": 8, "answer": 8} | limits)
    return unpack_samples(*packed, count, GRIDS.__contains__, VOCAB, most, "test")


@given(ROWS)
def test_rows_come_back(rows):
    packed = pack_samples(rows)
    assert len(packed[1]) == COUNT
    assert len(packed[0]) == 1 + 6 * len({row.grid for row in rows})
    for a, b in zip(rows, unpack(packed, len(rows)), strict=True):
        check(a)
        assert (a.index, a.grid, list(a.positions), a.question_ids, a.answer_ids) == (
            b.index,
            b.grid,
            b.positions.tolist(),
            b.question_ids,
            b.answer_ids,
        )
        assert b.positions.dtype == np.uint16
        assert b.uncertainty == float(np.float16(np.clip(a.uncertainty, -65504, 65504)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"grid": (16, 4)}, "three numbers"),
        ({"grid": (2**16, 256, 256)}, "up to 65535"),
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
        check(dataclasses.replace(GOOD, **change))


@pytest.mark.parametrize(
    ("place", "values", "itemsize", "says"),
    [
        (0, [31], 4, "test: index up to 31; allowed: 0..30"),
        (1, [17], 2, "test: 17 tokens kept of 16"),
        (2, [9], 2, "test: question lengths up to 9; allowed: 0..8"),
        (3, [9], 2, "test: answer lengths up to 9; allowed: 0..8"),
        (4, [0x7C00], 2, "test: an uncertainty is not finite"),
        (5, [15, 0], 2, "test: position 16 beyond"),
        (6, [1, 50], 4, "test: question ids up to 50; allowed: 0..49"),
        (7, [50], 4, "test: answer ids up to 50; allowed: 0..49"),
        (7, [1, 2], 4, "answer ids: 8 bytes for 1 integers"),
    ],
)
def test_a_column_beyond_the_limits_is_refused(place, values, itemsize, says):
    table, sections = pack_samples([GOOD])
    sections[place + 1] = columns.pack_column(np.array(values), itemsize)
    with pytest.raises(FrameError, match=says):
        unpack((table, sections))


ONE = bytes((1, 16, 0, 4, 0, 4, 0))


@pytest.mark.parametrize(
    ("table", "column", "says"),
    [
        (b"", b"", "table of grids of 0 bytes"),
        (ONE[:-1], b"", "table of grids of 6 bytes"),
        (ONE + b"\0", b"", "table of grids of 8 bytes"),
        (b"\0", b"", "0 grids for 1 samples"),
        (b"\2" + 2 * ONE[1:], b"", "2 grids for 1 samples"),
        (ONE.replace(b"\x10", b"\x11"), b"", "17 tokens in 4 x 4, which this pair has not"),
        (ONE, b"\0\0", "a column of grids where there is one"),
        (b"\2" + ONE[1:] + bytes((16, 0, 2, 0, 8, 0)), b"\0\2", "a grid that no sample has, or"),
        (b"\2" + ONE[1:] + bytes((16, 0, 2, 0, 8, 0)), b"", "grid: empty column"),
    ],
)
def test_a_table_of_grids_that_would_not_be_written_is_refused(table, column, says):
    _, sections = pack_samples([GOOD])
    with pytest.raises(FrameError, match=says):
        unpack((table, [column, *sections[1:]]))


def test_more_grids_than_a_column_of_bytes_can_name_are_not_sent():
    many = [dataclasses.replace(GOOD, index=i, grid=(N, 1, i)) for i in range(256)]
    with pytest.raises(ValueError, match="256 different grids in a frame; allowed: 255"):
        pack_samples(many)


def test_what_an_honest_device_would_not_send_is_refused_before_anything_is_made_of_it():
    packed = pack_samples([GOOD])
    for limits, says in (
        ({"kept": 1}, "tokens kept up to 2; allowed: 0..1"),
        ({"question": 1}, "question lengths up to 2; allowed: 0..1"),
        ({"answer": 0}, "answer lengths up to 1; allowed: 0..0"),
    ):
        with pytest.raises(FrameError, match=says):
            unpack(
                (packed[0], [*packed[1][:6], b"", b"", b""]), **limits
            )  # what comes later is not looked at
    assert unpack(packed, kept=2, question=2, answer=1)[0].question_ids == [1, 2]


def test_more_samples_than_allowed_or_one_twice_are_refused():
    sections = pack_samples([GOOD, GOOD])
    with pytest.raises(FrameError, match="test: 2 samples; allowed: 1"):
        unpack(sections, 2, samples=1)
    with pytest.raises(FrameError, match="test: one sample twice"):
        unpack(sections, 2)
