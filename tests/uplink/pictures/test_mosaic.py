"""Claims about mosaics: every patch comes back to where it was, and few cells are wasted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.uplink.pictures import mosaic

SIDE, PATCH = 12, 3  # 16 tokens
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
GREY = np.array([10, 20, 30], np.uint8)


@given(st.sets(st.integers(0, 15), min_size=1))
def test_kept_patches_come_back_to_their_places_and_the_rest_is_grey(kept):
    where = np.array(sorted(kept), np.uint16)
    small = mosaic.cut(PIXELS, where, PATCH)
    rows, columns = mosaic.shape(len(where))
    assert small.shape == (rows * PATCH, columns * PATCH, 3)
    canvas = mosaic.place(small, where, 4, 4, PATCH, GREY)
    assert canvas.shape == PIXELS.shape
    assert canvas.dtype == np.uint8
    for token in range(16):
        row, column = (PATCH * k for k in divmod(token, 4))
        part = np.s_[row : row + PATCH, column : column + PATCH]
        wanted = PIXELS[part] if token in kept else np.broadcast_to(GREY, (PATCH, PATCH, 3))
        assert np.array_equal(canvas[part], wanted)


def test_patches_stand_in_their_order_row_by_row_and_the_last_fills_up():
    where = np.array([1, 4, 6, 11, 15], np.uint16)
    small = mosaic.cut(PIXELS, where, PATCH)
    assert mosaic.shape(5) == (1, 5)
    for k, token in enumerate(where):
        row, column = (PATCH * i for i in divmod(int(token), 4))
        part = PIXELS[row : row + PATCH, column : column + PATCH]
        assert np.array_equal(small[:, PATCH * k : PATCH * (k + 1)], part)
    eleven = mosaic.cut(PIXELS, np.arange(11), PATCH)
    rows, columns = mosaic.shape(11)
    assert rows * columns == 12
    assert np.array_equal(eleven[-PATCH:, -PATCH:], eleven[-PATCH:, -2 * PATCH : -PATCH])


@pytest.mark.parametrize("count", [*range(1, 70), 576, 577])
def test_a_mosaic_wastes_little_and_is_no_thread(count):
    rows, columns = mosaic.shape(count)
    assert count <= rows * columns <= count + rows - 1
    assert rows * columns <= 1.15 * count + 1
    assert rows <= columns <= 7 * rows


def test_a_mosaic_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no patch"):
        mosaic.shape(0)
