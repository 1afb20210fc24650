import pytest

from experiments.report.amounts import amount, size


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
