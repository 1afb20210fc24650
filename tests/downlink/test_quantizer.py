"""Claims about the quantiser: offsets are centroids, and decoding is one fixed sequence of operations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.downlink import quantizer


def _offsets(ratio, magnitude, parts=1):
    found = quantizer.Offsets()
    for r, m in zip(np.array_split(ratio, parts), np.array_split(magnitude, parts), strict=True):
        found.add(r, m)
    return found.pair()


def test_offsets_are_the_centroids_however_they_are_counted():
    ratio, magnitude = np.array([1.2, 1.3, 2.0, 3.5]), np.array([1, 1, 2, 3])
    small, large = _offsets(ratio, magnitude)
    assert small / 128 - 0.5 == pytest.approx(0.25, abs=1 / 256)
    assert large / 128 - 0.5 == pytest.approx(0.25, abs=1 / 256)
    assert _offsets(ratio, magnitude, parts=3) == (small, large)
    assert _offsets(ratio[:0], magnitude[:0]) == (64, 64)


STEP = st.floats(2.0**-126, 2.0**127, width=32)


@given(st.integers(1, 2**31 - 1), st.booleans(), st.integers(0, 255), STEP)
def test_values_are_finite_and_on_their_side(magnitude, negative, offset, step):
    value = quantizer.dequantize(np.array([magnitude]), np.array([negative]), (offset, offset), step)
    assert np.isfinite(value).all()
    assert np.signbit(value[0]) == negative


def test_step_factors_are_exact_at_octaves_and_close_between():
    e = np.arange(-64, 65)
    assert quantizer.step_factors(e.astype(np.int8)) == pytest.approx(2.0 ** (e / 8), rel=1e-4)
    assert quantizer.step_factors(np.array([-8, 0, 16], np.int8)).tolist() == [0.5, 1.0, 4.0]


def test_a_weight_of_four_halves_the_step():
    e = quantizer.step_exponents([4.0, 1.0], 2)
    assert (e[1] - e[0]) / 8 == 1.0


def test_the_floor_step_leaves_the_asked_error():
    x = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    step = quantizer.floor_step(float(np.dot(x, x)), len(x), 1e-3)
    y = np.rint(x / step) * step
    assert np.linalg.norm(x - y) / np.linalg.norm(x) == pytest.approx(1e-3, rel=0.02)
