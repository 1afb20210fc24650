"""Claims about columns and varints: exact, never larger than raw, and hostile bytes are a FrameError."""

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.wire import coder, columns
from cdc_flower.wire.frame import FrameError


@given(st.lists(st.integers(0, 255), max_size=300), st.sampled_from([1, 2, 4]))
def test_a_column_comes_back_and_never_exceeds_its_raw_size(values, itemsize):
    data = columns.pack_column(np.array(values, np.int64), itemsize)
    assert len(data) <= 1 + itemsize * len(values)
    assert columns.unpack_column(data, len(values), itemsize, "x").tolist() == values


def test_each_way_to_store_a_column_is_used():
    rng = np.random.default_rng(0)
    flat = rng.integers(0, 256, 64)
    text = np.tile(rng.integers(0, 60_000, 12), 40)
    skewed = rng.geometric(0.4, 2000)
    ways = [columns.pack_column(v, 2)[0] for v in (flat * 251, text, skewed)]
    assert ways == [columns.RAW, columns.ZSTD, columns.CODED]


def test_a_zip_bomb_is_refused_before_it_is_inflated():
    bomb = bytes((columns.ZSTD,)) + zstandard.ZstdCompressor().compress(bytes(10**8))
    with pytest.raises(FrameError, match="declare 100000000 bytes, expected 8"):
        columns.unpack_column(bomb, 8, 1, "ids")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty column"),
        (b"\x07abc", "unknown column flag 7"),
        (b"\x00abc", "3 bytes for 4 integers"),
        (b"\x01abcd", "ids: "),
        (b"\x01" + zstandard.ZstdCompressor().compress(b"abcd") + b"x", "ids: "),
        (b"\x02\x40\x01\x00\x00\x00\x00" + b"\xff" * 7, "does not fit 1 bytes"),
    ],
)
def test_a_damaged_column_is_named(data, says):
    with pytest.raises(FrameError, match=says):
        columns.unpack_column(data, 4, 1, "ids")


@given(st.integers(0, 2**42 - 1))
def test_varints_come_back(value):
    data = columns.varint(value)
    assert columns.read_varint(b"x" + data, 1, "n") == (value, 1 + len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9])
def test_a_varint_without_an_end_is_refused(data):
    with pytest.raises(FrameError, match="cut short or too large"):
        columns.read_varint(data, 0, "n")


def test_a_varint_above_its_bound_is_refused():
    with pytest.raises(FrameError, match="cut short or too large"):
        columns.read_varint(columns.varint(2**42), 0, "n")


@pytest.mark.parametrize(("itemsize", "least"), [(1, 2**8), (2, 2**16)])
def test_a_coded_value_one_above_its_bytes_is_refused(itemsize, least):
    data = bytes((columns.CODED,))
    fits, above = (data + coder.encode([np.full(4, value)]) for value in (least - 1, least))
    assert columns.unpack_column(fits, 4, itemsize, "ids").tolist() == [least - 1] * 4
    with pytest.raises(FrameError, match=f"{least} does not fit {itemsize} bytes"):
        columns.unpack_column(above, 4, itemsize, "ids")
