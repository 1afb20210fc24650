import numpy as np
import pytest

from experiments.report.amounts import amount, percent, size, whole


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345, "12.3 kB"),
        (999_900, "1 MB"),
        (5e12, "5 TB"),
        (None, "-"),
        (float("nan"), "-"),
    ],
)
def test_bytes_for_people(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00218, "s", "2.18 ms"),
        (0.9996, "s", "1 s"),
        (52.9, "s", "52.9 s"),
        (1_234.0, "J", "1.23 kJ"),
        (7.42e9, "", "7.42G"),
        (3e-6, "s", "3 µs"),
        (0.0, "J", "0 J"),
        (None, "J", "-"),
    ],
)
def test_amounts_have_three_digits_a_prefix_and_their_unit(value, unit, text):
    assert amount(value, unit) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.7325, "73.3"),  # 73.25 as a float, which format() rounds down
        (0.6325, "63.3"),  # 63.249999999999993
        (0.7325 - 0.6325, "10.0"),
        (0.0, "0.0"),
        (1.0, "100.0"),
        (-0.00049, "-0.0"),
        (float("nan"), "-"),
    ],
)
def test_shares_are_rounded_half_up_whatever_floats_add(share, text):
    assert percent(share) == text
    assert percent(np.float64(share)) == text


@pytest.mark.parametrize(("share", "text"), [(0.0625, "+6.3"), (-0.0625, "-6.3"), (0.0, "+0.0")])
def test_a_difference_has_its_sign_and_is_rounded_alike_both_ways(share, text):
    assert percent(share, sign=True) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(4554.3, "4,554"), (999.7, "1,000"), (130.24, "130"), (0.0, "0"), (None, "-"), (float("nan"), "-")],
)
def test_operations_are_whole_from_a_thousand_on(value, text):
    assert whole(value) == text
