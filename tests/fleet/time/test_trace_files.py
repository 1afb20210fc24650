"""Trace files: both kinds bring back what was written; whatever is no trace is refused in one line."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from hypothesis import given, settings

from cdc_flower.config import ConfigError
from cdc_flower.fleet.time.trace_files import COLUMNS, frame, from_frame, read_trace, write_trace
from cdc_flower.fleet.time.traces import always
from tests.fleet.time.test_traces import PERIOD, intervals, tabled


@settings(max_examples=20)
@given(intervals())
def test_files_of_both_kinds_bring_back_the_trace(tmp_path_factory, rows):
    table = tabled(rows)
    trace = from_frame(table, 4, PERIOD)
    folder = tmp_path_factory.mktemp("trace")
    for name in ("t.parquet", "t.json"):
        write_trace(folder / name, trace)
        back = read_trace(folder / name, 4)
        assert back.period == PERIOD
        pd.testing.assert_frame_equal(frame(back), table)


def test_a_parquet_file_made_elsewhere_needs_the_columns_alone(tmp_path):
    table = pd.DataFrame([(1, 0, 5, True, False)], columns=list(COLUMNS))
    table.to_parquet(tmp_path / "t.parquet")
    assert read_trace(tmp_path / "t.parquet", 2).period == 5.0


GOOD = [(0, 0.0, 5.0, True, True), (0, 5.0, 9.0, True, True), (1, 2.0, 3.0, False, True)]


@pytest.mark.parametrize(
    ("row", "values", "named"),
    [
        (1, (0, 4.0, 9.0, True, True), ["row 1", "overlaps", "5.0", "start from there on"]),
        (1, (0, -1.0, 9.0, True, True), ["row 1", "negative", "from 0"]),
        (2, (0, 2.0, 3.0, True, True), ["row 2", "goes back in time", "order of time"]),
        (2, (1, 3.0, 3.0, True, True), ["row 2", "ends before it has begun"]),
        (2, (1, 3.0, 101.0, True, True), ["row 2", "longer than the trace", "100 s"]),
        (0, (7, 0.0, 5.0, True, True), ["row 0", "device 7 is unknown", "0 to 1"]),
        (0, (-1, 0.0, 5.0, True, True), ["row 0", "device -1 is unknown"]),
        (0, (0, 0.0, math.inf, True, True), ["row 0", "not finite"]),
        (0, (0, math.nan, 5.0, True, True), ["row 0", "'start'", "no gaps"]),
        (0, ("a", 0.0, 5.0, True, True), ["row 0", "'device'", "int64"]),
        (0, (0, 0.0, 5.0, 3, True), ["row 0", "'charging'", "bool"]),
        (1, (0, 5.0, 9.0, 1, True), ["row 1", "'charging' = 1;", "bool"]),  # after one that is allowed
        (2, (1, 2.0, 3.0, False, None), ["row 2", "'idle' = None;", "bool"]),
        (1, (0, "5", 9.0, True, True), ["row 1", "'start' = '5';", "float64"]),
        (1, (0, True, 9.0, True, True), ["row 1", "'start' = True;", "float64"]),
        (2, (1.5, 2.0, 3.0, False, True), ["row 2", "'device' = 1.5;", "int64"]),
        (2, (None, 2.0, 3.0, False, True), ["row 2", "'device' = nan;", "int64", "no gaps"]),
        (2, (2**70, 2.0, 3.0, False, True), ["row 2", f"'device' = {2**70};", "int64"]),
    ],
)
def test_a_row_that_is_not_allowed_is_refused_naming_it(tmp_path, row, values, named):
    rows = [values if i == row else good for i, good in enumerate(GOOD)]
    (tmp_path / "t.json").write_text(json.dumps({"period": PERIOD, "intervals": rows}))
    with pytest.raises(ConfigError) as error:
        read_trace(tmp_path / "t.json", 2)
    for part in ["t.json", "allowed", *named]:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("t.pkl", "x", [".parquet or .json"]),
        ("t.json", None, ["does not exist"]),
        ("t.json", "{", ["cannot be read", "period"]),
        ("t.json", "[]", ["cannot be read", "period"]),
        ("t.json", '{"period": 0, "intervals": []}', ["period = 0", "from 1"]),
        ("t.json", '{"period": 1e-9, "intervals": []}', ["period = 1e-09", "from 1"]),
        ("t.json", '{"period": "1", "intervals": []}', ["period = '1'"]),
        ("t.parquet", "no parquet", ["cannot be read"]),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, name, content, named):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as error:
        read_trace(tmp_path / name, 2)
    for part in named:
        assert part in str(error.value)
    if name == "t.pkl":
        with pytest.raises(ConfigError, match="parquet"):
            write_trace(tmp_path / name, always(1))


def test_a_column_of_another_kind_is_refused_without_a_row():
    table = pd.DataFrame(GOOD, columns=list(COLUMNS)).astype({"device": "float64"})
    with pytest.raises(ConfigError, match="^fleet: column 'device' is float64; allowed: int64, no gaps$"):
        from_frame(table, 2, PERIOD, "fleet")


def test_a_missing_column_is_refused():
    with pytest.raises(ConfigError, match=r"no column 'idle'.*device, start, end, charging, idle"):
        from_frame(pd.DataFrame(GOOD, columns=list(COLUMNS)).drop(columns="idle"), 2, PERIOD)
