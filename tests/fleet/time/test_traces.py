"""Traces: what they say at a moment and between moments, against a list of intervals."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.fleet.time.trace_files import COLUMNS, from_frame
from cdc_flower.fleet.time.traces import Trace, always

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


def test_everyone_is_always_there():
    trace = always(3, 50.0)
    assert trace.suitable(1234.5, need_charging=True, need_idle=True).all()
    assert trace.finish(np.arange(3), 7.0, np.array([0.0, 100.0, 1e6])).tolist() == [7.0, 107.0, 1e6 + 7]
    assert len(trace.changes(0, 500.0)[0]) == 0


def test_an_empty_trace_has_nobody_there():
    trace = from_frame(pd.DataFrame([], columns=list(COLUMNS)), 3, PERIOD)
    assert isinstance(trace, Trace)
    assert not trace.suitable(5.0).any()
    assert trace.finish(np.arange(3), 0.0, 1.0).tolist() == [math.inf] * 3
