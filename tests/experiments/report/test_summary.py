"""Numbers of a comparison, against values computed by hand."""

import json
import math
import shutil
from copy import deepcopy

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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda index: {}, "config"),
        (lambda index: [], "config"),
        (lambda index: None, "config"),
        *((lambda index, key=key: {**index, key: 7}, key) for key in summary.INDEXED),
        *(
            (lambda index, key=key: {k: v for k, v in index.items() if k != key}, key)
            for key in summary.INDEXED
        ),
        (lambda index: {**index, "methods": [["cdc"]]}, "methods"),
        (lambda index: {**index, "seeds": ["0"]}, "seeds"),
        (lambda index: {**index, "teacher": {"source": "much"}}, "teacher"),
        (lambda index: {**index, "config": {}}, "config"),
        (lambda index: {**index, "traits": {}}, "traits of static"),
        (lambda index: {**index, "traits": {"static": {"labels": True}}}, "traits of static"),
    ],
)
def test_a_comparison_that_is_not_as_it_is_written_is_refused(comparison, tmp_path, change, named):
    changed = change(deepcopy(comparison.index))
    (tmp_path / "comparison.json").write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match=rf"comparison\.json: '{named}' is missing or of another form; all"):
        summary.read(tmp_path)


def test_a_comparison_of_too_many_brackets_is_refused(tmp_path):
    (tmp_path / "comparison.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="cannot be read"):
        summary.read(tmp_path)


@pytest.mark.parametrize("name", ["rounds.parquet", "metrics.parquet", "devices.parquet"])
def test_a_completed_run_without_its_tables_is_not_left_out_silently(comparison, tmp_path, name):
    copied = shutil.copytree(comparison.out, tmp_path / "copied")
    (copied / "runs/cdc-1" / name).unlink()
    with pytest.raises(ConfigError, match=rf"cdc-1/{name}: is missing, and the run has completed; allowed: "):
        summary.read(copied)
    (copied / "runs/cdc-1/run.json").unlink()  # as if killed: it may lack them
    assert len(summary.read(copied).runs) == 8
