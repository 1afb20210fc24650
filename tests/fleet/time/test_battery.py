"""Batteries: exact between changes, within their limits, and nothing appears or vanishes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.fleet.time.battery import Spans, charging, run

NONE = Spans(*(np.zeros(0, t) for t in (np.int64, float, float, float)))


def spans(*rows: tuple[int, float, float, float]) -> Spans:
    return Spans(*(np.array(column) for column in zip(*rows, strict=True))) if rows else NONE


def second_by_second(level: float, capacity: float, idle: float, rows, begin: int, end: int) -> float:
    """One device, spans on whole seconds."""
    for second in range(begin, end):
        watts = idle + sum(w for _, first, last, w in rows if first <= second < last)
        level = min(max(level - watts, 0.0), capacity)
    return level


drawn = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 60), st.integers(-9, 9)), max_size=8
)


@settings(max_examples=100)
@given(drawn, st.integers(0, 20), st.integers(0, 40))
def test_levels_are_those_of_a_loop_over_seconds(rows, begin, lasts):
    levels, capacity = np.array([10.0, 40.0, 0.0]), np.array([10.0, 50.0, 30.0])
    idle = np.array([1.0, 2.0, 0.0])
    after, empty = run(levels, capacity, idle, spans(*rows), begin, begin + lasts)
    assert (after >= 0).all()
    assert (after <= capacity).all()
    for d in range(3):
        own = [row for row in rows if row[0] == d]
        if np.isinf(empty[d]):  # a clamp at 0 within a second is the loop's own error
            expected = second_by_second(levels[d], capacity[d], idle[d], own, begin, begin + lasts)
            assert after[d] == pytest.approx(expected, abs=1e-9) or after[d] == 0
        else:
            assert begin <= empty[d] <= begin + lasts


def test_a_battery_is_empty_when_its_energy_is_used_up_and_rises_again_on_the_charger():
    level, empty = run(
        np.array([100.0]),
        np.array([100.0]),
        np.array([1.0]),
        spans((0, 0, 50, 4.0), (0, 60, 70, -6.0)),
        0,
        70,
    )
    assert empty.tolist() == [20.0]
    assert level.tolist() == [50.0]  # 10 s at 6 W - 1 W


def test_what_a_full_battery_cannot_take_is_lost():
    level, _ = run(np.array([90.0]), np.array([100.0]), np.array([1.0]), spans((0, 0, 50, -6.0)), 0, 60)
    assert level.tolist() == [90.0]  # full at 100 J for long, then 10 s of 1 W


def test_mains_never_ends():
    endless = np.array([math.inf])
    level, empty = run(endless, endless, np.array([5.0]), spans((0, 0, 9, 99.0)), 0, 9)
    assert level.tolist() == empty.tolist() == [math.inf]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 99), st.integers(0, 2)), unique=True),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_charging_spans_are_the_times_between_plugging_and_unplugging(moments, plugged):
    state, rows = list(plugged), []
    for time, device in sorted(moments):
        state[device] = not state[device]
        rows.append((float(time), device, state[device]))
    columns = (
        tuple(np.array(column) for column in zip(*rows, strict=True))
        if rows
        else (np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))
    )
    found = charging(columns, np.array(plugged), np.array([1.0, 2.0, 3.0]), 0.0, 100.0)
    for second in range(100):
        on = list(plugged)
        for time, device, up in rows:
            if time <= second:
                on[device] = up
        covering = found.device[(found.begin <= second) & (second < found.end)]
        assert sorted(covering.tolist()) == [d for d in range(3) if on[d]]
    assert found.watts.tolist() == [-(d + 1.0) for d in found.device.tolist()]
