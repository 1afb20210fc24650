"""Numbers of a comparison, against values computed by hand."""

import math

import pytest

from cdc_flower.config import ConfigError
from experiments.report import summary


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ([1.0, 3.0], 12.706 * math.sqrt(2) / math.sqrt(2)),
        ([1.0, 2.0, 3.0], 4.303 / math.sqrt(3)),
        ([5.0, 5.0, 5.0], 0.0),
    ],
)
def test_intervals_are_students_t(values, half):
    low, high = summary.interval(values)
    assert (high - low) / 2 == pytest.approx(half)
    assert (high + low) / 2 == pytest.approx(sum(values) / len(values))


def test_one_value_has_no_interval():
    assert summary.interval([1.0]) is None


@pytest.mark.parametrize(("n", "quantile"), [(31, 2.042), (41, 2.021), (61, 2.000), (121, 1.980)])
def test_intervals_of_many_seeds_stay_within_0_002_of_the_table(n, quantile):
    values = [float(i % 2) for i in range(n)]
    low, high = summary.interval(values)
    mean = sum(values) / n
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    assert (high - low) / 2 / (deviation / math.sqrt(n)) == pytest.approx(quantile, abs=2e-3)


def test_drift_is_the_unweighted_mean_of_all_domains_but_the_source():
    assert summary.drift_mean({"source": 0.0, "object": 0.5, "question": 1.0}) == 0.75
    assert summary.drift_mean({"source": 1.0}) is None


def test_reading_something_else_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"comparison\.json is missing"):
        summary.read(tmp_path)
