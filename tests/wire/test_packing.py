"""Claims about bits, symbols and places: exact both ways, and what is too short or not padded with zeros is
refused.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.wire import packing
from cdc_flower.wire.frame import FrameError

BITS = st.lists(st.integers(0, 1), max_size=40)


@given(st.lists(BITS, max_size=5), st.lists(BITS, max_size=5), st.sampled_from([8, 2**18]))
def test_a_row_is_that_of_packbits_however_it_is_written(first, second, flush):
    whole = np.array([b for part in (*first, *second) for b in part], np.uint8)
    rows = packing.BitWriter(), packing.BitWriter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_FLUSH", flush)
        for row, parts in zip(rows, (first, second), strict=True):
            for part in parts:
                row.add(np.array(part, np.uint8))
        rows[0].extend(rows[1])
    assert rows[0].tobytes() == np.packbits(whole).tobytes()


@given(BITS, st.integers(0, 40), st.integers(0, 40))
def test_any_run_of_bits_is_read(bits, a, b):
    start, stop = sorted((min(a, len(bits)), min(b, len(bits))))
    packed = packing.packed_row(np.packbits(np.array(bits, np.uint8)).tobytes(), len(bits), "row")
    assert packing.read_bits(packed, start, stop - start).tolist() == bits[start:stop]


def test_rows_that_do_not_fit_their_bits_are_named():
    with pytest.raises(FrameError, match="row: 1 bytes for 9 bits"):
        packing.packed_row(b"\0", 9, "row")
    with pytest.raises(FrameError, match="row: padding that is not zero"):
        packing.packed_row(b"\xff\x40", 9, "row")
    assert packing.packed_row(b"\xff\x80", 9, "row").tolist() == [255, 128]


@given(st.lists(st.integers(0, 15), max_size=9))
def test_symbols_of_four_bits_come_back(symbols):
    data = packing.pack_nibbles(np.array(symbols, np.uint8))
    assert len(data) == (len(symbols) + 1) // 2
    assert packing.unpack_nibbles(data, len(symbols), "x").tolist() == symbols


@pytest.mark.parametrize(
    ("data", "count", "says"),
    [(b"", 1, "x: 0 bytes for 1 symbols"), (b"\0\0", 1, "2 bytes"), (b"\x10", 1, "padding that is not zero")],
)
def test_damaged_symbols_of_four_bits_are_named(data, count, says):
    with pytest.raises(FrameError, match=says):
        packing.unpack_nibbles(data, count, "x")


@given(st.lists(st.integers(-16383, 16383), max_size=9), st.sampled_from([np.int16, np.int64]))
def test_folded_symbols_come_back(symbols, kind):
    folded = packing.fold(np.array(symbols, kind))
    assert folded.dtype == kind
    assert (folded >= 0).all()
    assert packing.unfold(folded).tolist() == symbols
    assert packing.fold(np.array([0, -1, 1, -2], kind)).tolist() == [0, 1, 2, 3]


@given(st.sets(st.integers(0, 1000)), st.integers(-1, -1) | st.integers(-9, -2))
def test_places_come_back_from_their_gaps(places, last):
    rising = np.array(sorted(places), np.int64)
    gaps = packing.gaps(rising, last)
    assert gaps.tolist() == [b - a - 1 for a, b in zip([last, *rising], rising, strict=False)]
    assert packing.places(gaps, last).tolist() == rising.tolist()
