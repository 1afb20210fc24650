"""Rounds in virtual time: who is in, when a round ends, where the time went, and that none ever hangs."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cdc_flower.fleet.cost.mixes import fleet
from cdc_flower.fleet.cost.profiles import Devices, read_profiles
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.time import clock
from cdc_flower.fleet.time.availability import generate
from cdc_flower.fleet.time.clock import STATUSES, candidates, play, start
from cdc_flower.fleet.time.network import down_seconds, up_seconds
from cdc_flower.fleet.time.tasks import Tasks
from cdc_flower.fleet.time.trace_files import COLUMNS, from_frame
from cdc_flower.fleet.time.traces import Trace, always

PROFILES = read_profiles()
BOARDS = Devices.of([PROFILES["pi4"]] * 5)
RULES = FleetConfig(deadline=100.0)


def tasks(*work: float, down: float = 0.0, up: float = 0.0, first: int = 0) -> Tasks:
    """Device first + i works for work[i] seconds."""
    m = len(work)
    return Tasks(np.arange(first, first + m), np.full(m, down), np.array(work, float), np.full(m, up))


def trace_of(*rows: tuple, devices: int = 5, period: float = 1000.0) -> Trace:
    import pandas as pd

    table = pd.DataFrame(
        [(*row, False, False) if len(row) == 3 else row for row in rows], columns=list(COLUMNS)
    ).astype(COLUMNS)
    return from_frame(table, devices, period)


def names(report: clock.Report) -> list[str]:
    return [STATUSES[s] for s in report.status]


def test_a_round_ends_when_enough_have_answered():
    state, report = play(start(BOARDS), tasks(30, 10, 50, 20), 3, BOARDS, always(5), RULES)
    assert (report.begin, report.end, state.now) == (0.0, 30.0, 30.0)
    assert names(report) == ["in", "in", "late", "in"]
    assert report.answered.tolist() == [0, 1, 3]
    assert report.spent.wait.tolist() == [0.0, 20.0, 0.0, 10.0]
    assert report.spent.work.tolist() == [30.0, 10.0, 30.0, 20.0]  # the late one is stopped at the end


def test_a_round_ends_at_its_deadline_with_whoever_is_there():
    _, report = play(start(BOARDS), tasks(30, 10, 150, 200), 3, BOARDS, always(5), RULES)
    assert report.end == 100.0
    assert names(report) == ["in", "in", "late", "late"]


@pytest.mark.parametrize("asked", [tasks(), tasks(1e9, 1e9)])
def test_an_empty_cohort_or_a_deadline_nobody_can_meet_is_an_empty_round(asked):
    state, report = play(start(BOARDS), asked, 2, BOARDS, always(5), RULES)
    assert (report.end, state.now, state.round) == (100.0, 100.0, 1)
    assert len(report.answered) == 0


def test_a_dropped_answer_never_comes_and_a_taken_one_comes_in_the_round_of_its_arrival():
    for late, arrives in (("drop", []), ("take", [2])):
        rules = replace(RULES, late=late)
        state, first = play(start(BOARDS), tasks(30, 10, 75), 2, BOARDS, always(5), rules)
        assert names(first) == ["in", "in", "late"]
        assert candidates(state, BOARDS, always(5), rules).tolist() == (
            [0, 1, 2, 3, 4] if late == "drop" else [0, 1, 3, 4]
        )
        state, second = play(state, tasks(30, 40), 2, BOARDS, always(5), rules)  # 30 s to 70 s
        assert len(second.late_device) == 0
        state, third = play(state, tasks(20, 20), 2, BOARDS, always(5), rules)  # 70 s to 90 s
        assert third.late_device.tolist() == arrives
        assert third.late_round.tolist() == [1] * len(arrives)
        assert len(state.pending) == 0


def test_a_device_at_work_cannot_be_asked_again():
    state, _ = play(start(BOARDS), tasks(30, 10, 75), 2, BOARDS, always(5), replace(RULES, late="take"))
    with pytest.raises(ValueError, match="device 2, which is at work"):
        play(state, tasks(1, first=2), 1, BOARDS, always(5), replace(RULES, late="take"))


def test_the_cloud_takes_its_time_before_the_next_round():
    state, report = play(start(BOARDS), tasks(10), 1, BOARDS, always(5), RULES, cloud_seconds=7.0)
    assert (report.end, state.now) == (10.0, 17.0)


def test_the_phases_are_those_of_network_and_work_and_rest_while_the_device_is_away():
    trace = trace_of((0, 0.0, 0.1), (0, 40.0, 1000.0))
    pi = PROFILES["pi4"]
    down, up = down_seconds(pi, 10**6), up_seconds(pi, 10**5)
    assert down > 0.1
    _, report = play(start(BOARDS), tasks(5, down=10**6, up=10**5), 1, BOARDS, trace, RULES)
    assert report.end == report.finish[0] == pytest.approx(40 + (down - 0.1) + 5 + up)
    assert report.spent.download[0] == pytest.approx(down)
    assert report.spent.upload[0] == pytest.approx(up)
    assert report.spent.offline[0] == pytest.approx(39.9)
    joules = 5 * pi.compute_power + (down + up) * pi.radio_power + 39.9 * pi.idle_power
    assert report.joules[0] == pytest.approx(joules)


def test_one_that_never_comes_back_is_away():
    trace = trace_of((1, 0.0, 1000.0))
    _, report = play(start(BOARDS), tasks(5, 5, up=10.0), 2, BOARDS, trace, RULES)
    assert names(report) == ["away", "in"]
    assert report.finish[0] == math.inf
    assert report.end == 100.0


# --- batteries -------------------------------------------------------------------------------------------

PHONE = replace(PROFILES["phone-old"], idle_power=1.0, compute_power=5.0, battery=200.0, charge_power=11.0)
PHONES = Devices.of([PHONE] * 5)
UNPLUGGED = trace_of(*((d, 0.0, 1000.0) for d in range(5)))


def test_a_battery_that_runs_out_ends_the_task():
    state, report = play(start(PHONES), tasks(30, 60), 2, PHONES, UNPLUGGED, RULES)
    assert names(report) == ["in", "flat"]
    assert report.end == 100.0
    assert report.spent.work.tolist() == [30.0, 40.0]  # 200 J at 5 W
    assert report.joules.tolist() == [30 * 5 + 70 * 1, 200.0]
    np.testing.assert_allclose(state.level, [0.0, 0.0, 100.0, 100.0, 100.0], atol=1e-9)
    assert candidates(state, PHONES, UNPLUGGED, RULES).tolist() == [2, 3, 4]
    assert candidates(state, PHONES, UNPLUGGED, replace(RULES, min_battery=0.6)).tolist() == []


def test_a_charger_keeps_it_going_and_fills_it_up():
    plugged = trace_of(*((d, 0.0, 1000.0, True, True) for d in range(5)))
    state, report = play(start(PHONES, charge=0.1), tasks(90), 1, PHONES, plugged, RULES)
    assert names(report) == ["in"]
    assert state.level.tolist() == [200.0] * 5


def test_a_late_task_may_still_die():
    rules = replace(RULES, late="take")
    state, report = play(start(PHONES), tasks(10, 60), 1, PHONES, UNPLUGGED, rules)
    assert names(report) == ["in", "late"]
    assert state.pending.device.tolist() == [1]
    state, report = play(state, tasks(), 1, PHONES, UNPLUGGED, rules)
    assert len(report.late_device) == 0
    assert (report.lost_device.tolist(), report.lost_round.tolist()) == ([1], [1])
    assert [STATUSES[s] for s in report.lost_status] == ["flat"]
    assert len(state.pending) == 0
    assert state.level[1] == 0


# --- the asynchronous mode ---------------------------------------------------------------------------------

ASYNC = FleetConfig(mode="async", deadline=100.0, buffer=2)


def test_each_full_buffer_ends_a_round_and_old_answers_count():
    state, first = play(start(BOARDS), tasks(30, 10, 50, 20), 1, BOARDS, always(5), ASYNC)
    assert first.end == 20.0
    assert first.answered.tolist() == [1, 3]
    state, second = play(state, tasks(35, first=4), 1, BOARDS, always(5), ASYNC)
    assert (second.end, second.late_device.tolist(), second.late_round.tolist()) == (50.0, [0, 2], [1, 1])
    state, third = play(state, tasks(), 1, BOARDS, always(5), ASYNC)
    assert (third.end, third.late_device.tolist()) == (55.0, [4])  # no more can come


def test_a_task_of_the_asynchronous_mode_is_given_up_after_its_own_deadline():
    state, first = play(start(BOARDS), tasks(30, 250), 1, BOARDS, always(5), replace(ASYNC, buffer=1))
    assert (first.end, state.pending.device.tolist()) == (30.0, [1])
    assert first.spent.work.tolist() == [30.0, 100.0]
    state, second = play(state, tasks(), 1, BOARDS, always(5), ASYNC)
    assert (second.end, second.lost_device.tolist()) == (100.0, [1])
    assert [STATUSES[s] for s in second.lost_status] == ["late"]
    assert len(second.answered) == 0


def test_stale_answers_count_less():
    assert clock.staleness_weight(np.array([0, 3, 8]), 0.5).tolist() == [1.0, 0.5, 1 / 3]
    assert clock.staleness_weight(np.array([0, 3]), 0.0).tolist() == [1.0, 1.0]


def test_the_clock_goes_on_from_its_state():
    config = replace(ASYNC, buffer=1)
    state, _ = play(start(PHONES), tasks(10, 30, 35), 1, PHONES, UNPLUGGED, config)
    again = clock.State.from_state(state.state())
    (one, first), (other, second) = (play(s, tasks(), 1, PHONES, UNPLUGGED, config) for s in (state, again))
    assert (first.end, first.late_device.tolist()) == (second.end, second.late_device.tolist()) == (30.0, [1])
    assert one.level.tolist() == other.level.tolist()


# --- laws ------------------------------------------------------------------------------------------------

MIX = "phone-mid=40%,phone-old=20%,pi4=20%,laptop=20%"
N = 40
FLEET = fleet(MIX, N, 0)
FLEET = replace(FLEET, battery=np.minimum(FLEET.battery, np.where(np.isinf(FLEET.battery), np.inf, 9_000.0)))
TRACE = generate(FLEET.classes, 0, 1, [-6.0, 0.0, 6.0])
rules = st.builds(
    FleetConfig,
    late=st.sampled_from(["drop", "take"]),
    deadline=st.floats(1, 4000),
    need_charging=st.booleans(),
    min_battery=st.floats(0, 0.5),
)


def played(config: FleetConfig, seed: int, rounds: int, wanted: int, moment: float):
    rng = np.random.default_rng(seed)
    state = replace(start(FLEET, charge=0.5), now=moment)
    for _ in range(rounds):
        free = candidates(state, FLEET, TRACE, config)
        asked = np.sort(rng.choice(free, min(len(free), config.to_ask(wanted)), replace=False))
        work = Tasks(
            asked,
            rng.exponential(1e5, len(asked)).round(),
            rng.exponential(600, len(asked)),
            rng.exponential(1e6, len(asked)).round(),
        )
        before = state
        _, at_once = play(state, work, wanted, FLEET, TRACE, config)
        state, report = play(state, work, wanted, FLEET, TRACE, config, cloud_seconds=3.0)
        # what came does not depend on the cloud; what is still to come may die while the cloud works
        for name in ("answered", "late_device"):
            assert np.array_equal(getattr(at_once, name), getattr(report, name))
        came = at_once.status == 0
        assert np.array_equal(at_once.finish[came], report.finish[came])
        yield before, work, state, report


A_LATE_TASK_DIES_WHILE_THE_CLOUD_WORKS = (
    FleetConfig(late="take", deadline=1200.0, need_charging=True, min_battery=0.5),
    69,
    8,
    57509.0,
)


@settings(max_examples=40)
@given(rules, st.integers(0, 99), st.integers(1, 15), st.floats(0, 86_400))
@example(*A_LATE_TASK_DIES_WHILE_THE_CLOUD_WORKS)
def test_laws_of_rounds(config, seed, wanted, moment):
    under_way: set[int] = set()
    owed: set[tuple[int, int]] = set()
    for before, work, state, report in played(config, seed, 5, wanted, moment):
        m = len(work.device)
        # time
        assert before.now == report.begin <= report.end <= report.begin + config.deadline
        assert state.now == report.end + 3.0
        # a round is as long as it must be: enough are in, or it lasts to the deadline
        assert len(report.answered) >= min(wanted, m) > 0 or report.end == report.begin + config.deadline
        assert (report.finish[report.status == 0] <= report.end).all()
        assert (report.finish[report.status != 0] > report.end).all()
        # every second of every task is in exactly one state
        total = sum(astuple(report.spent))
        fate = report.finish if config.late == "take" else np.full(m, np.inf)
        until = np.where((report.status == 1) & np.isfinite(fate), fate, report.end)
        if m:
            np.testing.assert_allclose(total, until - report.begin, rtol=1e-9, atol=1e-6)
            assert all((part >= 0).all() for part in astuple(report.spent))
        on_time = report.status == 0
        np.testing.assert_allclose(report.spent.work[on_time], work.work_seconds[on_time], atol=1e-6)
        # nobody is at work twice, and a late task arrives once or is given up
        assert not under_way & set(work.device.tolist())
        under_way = set(state.pending.device.tolist())
        came = set(zip(report.late_device.tolist(), report.late_round.tolist(), strict=True))
        assert came <= owed
        owed = set(zip(state.pending.device.tolist(), state.pending.round.tolist(), strict=True))
        assert not came & owed
        assert (report.late_round < report.round).all()
        # batteries
        assert ((state.level >= 0) & (state.level <= FLEET.battery)).all()


in_any_mode = st.builds(
    FleetConfig,
    mode=st.sampled_from(["sync", "async"]),
    buffer=st.integers(1, 6),
    late=st.sampled_from(["drop", "take"]),
    deadline=st.floats(1, 4000),
)


@settings(max_examples=40)
@given(in_any_mode, st.integers(0, 99), st.integers(1, 15))
def test_every_task_is_answered_lost_or_under_way_exactly_once(config, seed, wanted):
    drops = config.mode == "sync" and config.late == "drop"
    asked, settled = set(), []
    for _, work, state, report in played(config, seed, 6, wanted, 0.0):
        assert report.end >= report.begin
        asked |= {(d, report.round) for d in work.device.tolist()}
        under_way = set(zip(state.pending.device.tolist(), state.pending.round.tolist(), strict=True))
        settled += [(d, report.round) for d in report.device.tolist() if (d, report.round) not in under_way]
        settled += zip(report.late_device.tolist(), report.late_round.tolist(), strict=True)
        settled += zip(report.lost_device.tolist(), report.lost_round.tolist(), strict=True)
        assert len(settled) == len(set(settled))
        assert set(settled) | under_way == asked
        assert not set(settled) & under_way
        assert not (drops and under_way)


@settings(max_examples=10)
@given(rules, st.integers(0, 99))
def test_equal_seeds_give_equal_rounds(config, seed):
    def flat(report: clock.Report) -> list:
        return [
            a.tolist() if isinstance(a, np.ndarray) else a
            for a in (
                report.end,
                report.device,
                report.status,
                report.finish,
                report.joules,
                report.late_device,
            )
        ]

    first, second = ([flat(report) for *_, report in played(config, seed, 4, 8, 0.0)] for _ in range(2))
    assert first == second
