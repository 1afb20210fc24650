"""Traces: what they say at a moment and between moments, against a list of intervals; files; bad rows."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError
from cdc_flower.fleet.time.traces import COLUMNS, Trace, always, from_frame, read_trace, write_trace

PERIOD = 100.0


@st.composite
def intervals(draw) -> list[tuple]:
    """Rows of up to 4 devices (some without any) on whole seconds, some touching."""
    rows = []
    for device in range(4):
        cuts = sorted(draw(st.sets(st.integers(0, 100), max_size=8)))
        for start, end in pairwise(cuts):
            if draw(st.booleans()):
                rows.append((device, float(start), float(end), draw(st.booleans()), draw(st.booleans())))
    return rows


def tabled(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def is_on(table: pd.DataFrame, device: int, time: float) -> bool:
    own = table[table["device"] == device]
    return bool(((own["start"] <= time % PERIOD) & (time % PERIOD < own["end"])).any())


def online_by_hand(table: pd.DataFrame, device: int, time: float) -> float:
    own = table[table["device"] == device]
    whole, rest = divmod(time, PERIOD)
    part = (own["end"].clip(upper=rest) - own["start"]).clip(lower=0).sum()
    return float(whole * (own["end"] - own["start"]).sum() + part)


@settings(max_examples=50)
@given(intervals(), st.floats(0, 350))
def test_a_moment_is_as_the_table_says(rows, time):
    table = tabled(rows)
    trace = from_frame(table, 4, PERIOD)
    every = np.arange(4)
    assert trace.online(every, time).tolist() == [is_on(table, d, time) for d in range(4)]
    np.testing.assert_allclose(
        trace.online_seconds(every, time), [online_by_hand(table, d, time) for d in range(4)], atol=1e-9
    )
    fine = table[table["charging"] & ~table["idle"]]
    assert (trace.suitable(time, need_charging=True) & ~trace.suitable(time, need_idle=True)).tolist() == [
        is_on(fine, d, time) for d in range(4)
    ]


@settings(max_examples=50)
@given(intervals(), st.floats(0, 250), st.floats(0, 300))
def test_a_transfer_ends_when_the_device_was_online_for_as_long_as_it_takes(rows, start, seconds):
    table = tabled(rows)
    trace = from_frame(table, 4, PERIOD)
    every = np.arange(4)
    ends = trace.finish(every, start, seconds)
    for device, end in enumerate(ends.tolist()):
        assert end >= start + seconds
        if seconds == 0:
            assert end == start
        elif not (table["device"] == device).any():
            assert end == math.inf
        else:
            passed = online_by_hand(table, device, end) - online_by_hand(table, device, start)
            assert passed == pytest.approx(seconds, abs=1e-6)
    assert (trace.finish(every, start, seconds + 1) >= ends).all()


@settings(max_examples=50)
@given(intervals(), st.integers(0, 250), st.integers(0, 250), st.booleans())
def test_changes_carry_the_state_at_one_moment_to_that_at_another(rows, begin, lasts, need_charging):
    table = tabled(rows)
    trace = from_frame(table, 4, PERIOD)
    up = trace.suitable(begin, need_charging)
    times, devices, begins = trace.changes(begin, begin + lasts, need_charging)
    order = list(zip(times.tolist(), begins.tolist(), devices.tolist(), strict=True))
    assert order == sorted(order)
    assert ((times > begin) & (times <= begin + lasts)).all()
    for device, begun in zip(devices, begins, strict=True):
        assert up[device] != begun  # nobody is twice in one state
        up[device] = begun
    assert up.tolist() == trace.suitable(begin + lasts, need_charging).tolist()


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
        pd.testing.assert_frame_equal(back.frame(), table)


def test_everyone_is_always_there():
    trace = always(3, 50.0)
    assert trace.suitable(1234.5, need_charging=True, need_idle=True).all()
    assert trace.finish(np.arange(3), 7.0, np.array([0.0, 100.0, 1e6])).tolist() == [7.0, 107.0, 1e6 + 7]
    assert len(trace.changes(0, 500.0)[0]) == 0


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


def test_a_missing_column_is_refused():
    with pytest.raises(ConfigError, match=r"no column 'idle'.*device, start, end, charging, idle"):
        from_frame(pd.DataFrame(GOOD, columns=list(COLUMNS)).drop(columns="idle"), 2, PERIOD)


def test_an_empty_trace_has_nobody_there():
    trace = from_frame(pd.DataFrame([], columns=list(COLUMNS)), 3, PERIOD)
    assert isinstance(trace, Trace)
    assert not trace.suitable(5.0).any()
    assert trace.finish(np.arange(3), 0.0, 1.0).tolist() == [math.inf] * 3
