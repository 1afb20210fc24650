"""Claims about a stranger's array: the one that is expected comes back, and no header is believed."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.wire.arrays import read_flat
from cdc_flower.wire.frame import FrameError
from tests import memory


def saved(array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_what_numpy_saved_comes_back(size, dtype):
    array = np.random.default_rng(0).standard_normal(size).astype(dtype)
    back = read_flat(saved(array), size, dtype)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(3, np.float32), r"'<f4'.*allowed: float16 of shape \(3,\)"),
        (np.zeros(3, ">f2"), "'>f2'"),
        (np.zeros((1, 3), np.float16), r"\(1, 3\)"),
        (np.zeros((), np.float16), r"\(\)"),
        (np.zeros(4, np.float16), r"\(4,\)"),
        (np.array([0, np.nan, 0], np.float16), "not finite"),
        (np.array([0, 0, -np.inf], np.float16), "not finite"),
    ],
)
def test_another_array_is_refused(array, says):
    with pytest.raises(FrameError, match=says):
        read_flat(saved(array), 3)


def test_a_header_that_claims_terabytes_allocates_nothing():
    data = saved(np.zeros(3, np.float16)).replace(b"(3,), }              ", b"(999999999999,), }   ")
    assert b"999999999999" in data
    for size in (3, 999999999999):
        with pytest.raises(FrameError):
            read_flat(data, size)
        assert memory.peak(lambda size=size: read_flat(data, size), FrameError) < 256 * 1024


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(FrameError):
        read_flat(data, 3)


@given(st.integers(0, 133), st.integers(0, 255))
def test_one_changed_byte_gives_an_array_of_the_same_size_or_is_refused(at, value):
    data = bytearray(saved(np.ones(3, np.float16)))
    data[at] = value
    with contextlib.suppress(FrameError):
        assert read_flat(bytes(data), 3).shape == (3,)
