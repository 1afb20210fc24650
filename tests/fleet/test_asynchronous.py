"""The asynchronous pace: buffers, staleness, the order of events, and its end."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.fleet.asynchronous import Step, run, staleness_weight
from cdc_flower.fleet.devices import fleet
from cdc_flower.fleet.habits import generate
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.traces import always

DAY = 86_400.0


def constant(lasts: float):
    return lambda device, now, version: now + lasts


def test_each_full_buffer_is_a_version():
    config = FleetConfig(buffer=3, in_flight=2)
    steps = list(run(always(5), config, 0, constant(10.0), 100.0))
    # two answers every 10 s: the third comes at 20 s, the sixth at 30 s, the ninth at 50 s, ...
    assert [s.time for s in steps] == [20.0, 30.0, 50.0, 60.0, 80.0, 90.0]
    assert [s.version for s in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].arrived.tolist() == [10.0, 10.0, 20.0]
    assert steps[0].based_on.tolist() == [0, 0, 0]
    assert steps[1].based_on.tolist() == [0, 0, 1] or steps[1].based_on.tolist() == [0, 1, 1]


def test_stale_answers_count_less():
    assert staleness_weight(np.array([0, 3, 8]), 0.5).tolist() == [1.0, 0.5, 1 / 3]
    assert staleness_weight(np.array([0, 3]), 0.0).tolist() == [1.0, 1.0]
    config = FleetConfig(buffer=1, in_flight=4, staleness_power=1.0)
    steps = list(run(always(4), config, 0, lambda d, now, v: now + 1.0 + 10 * (d == 0), 15.0))
    slow = next(s for s in steps if 0 in s.device)
    assert slow.weight.tolist() == [1 / (1 + slow.version - 1)]


def test_a_task_that_does_not_come_back_makes_room_at_its_deadline():
    asked = []

    def begin(device: int, now: float, version: int) -> float:
        asked.append((now, device))
        return math.inf

    assert list(run(always(1), FleetConfig(deadline=30.0), 0, begin, 100.0)) == []
    assert asked == [(0.0, 0), (30.0, 0), (60.0, 0), (90.0, 0)]


def test_without_devices_it_ends():
    config = FleetConfig(need_charging=True)
    dark = always(3)
    dark.charging[:] = False
    assert list(run(dark, config, 0, constant(1.0), math.inf)) == []


def test_an_answer_before_its_question_is_refused():
    with pytest.raises(ValueError, match=r"device 0, asked at 0\.0 s, answers at 0\.0 s; allowed: later"):
        list(run(always(1), FleetConfig(), 0, constant(0.0), 10.0))


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 30), st.integers(1, 8), st.booleans(), st.floats(60, 4000))
def test_laws_of_the_asynchronous_pace(seed, in_flight, buffer, need_idle, deadline):
    trace = generate(["phone", "board", "laptop"] * 4, seed, 1)
    config = FleetConfig(in_flight=in_flight, buffer=buffer, need_idle=need_idle, deadline=deadline)

    def play() -> tuple[list[Step], list[tuple[int, float, int, float]]]:
        rng, asked = random.Random(seed), []

        def begin(device: int, now: float, version: int) -> float:
            finish = trace.finish_one(device, now + rng.expovariate(1 / 1800), 20.0)
            asked.append((device, now, version, min(finish, now + deadline)))
            return finish

        return list(run(trace, config, seed, begin, DAY / 2)), asked

    steps, asked = play()
    assert asked == play()[1]
    assert [now for _, now, *_ in asked] == sorted(now for _, now, *_ in asked)
    free: dict[int, float] = {}
    for device, now, _, until in asked:
        assert now >= free.get(device, 0.0)  # nobody is at work twice
        assert trace.suitable(now, need_idle=need_idle)[device]
        free[device] = until
    for number, step in enumerate(steps, 1):
        assert step.version == number
        assert len(step.device) == buffer
        assert step.arrived.tolist() == sorted(step.arrived)
        assert step.time == step.arrived[-1] <= DAY / 2
        assert (step.based_on < number).all()
    assert [s.time for s in steps] == sorted(s.time for s in steps)
    moments = sorted([(now, 1) for _, now, *_ in asked] + [(until, -1) for *_, until in asked])
    assert max(np.cumsum([change for _, change in moments]), default=0) <= in_flight


def test_a_day_of_ten_thousand_devices_takes_seconds():
    devices = fleet("phone-mid=60%,pi4=40%", 10_000, 0)
    trace = generate(devices.classes, 0, 1)
    config = FleetConfig(in_flight=200)
    begun = time.process_time()
    steps = list(run(trace, config, 0, lambda d, now, v: trace.finish_one(d, now, 120.0), DAY))
    seconds = time.process_time() - begun
    assert steps[-1].events > 200_000
    assert steps[-1].events / seconds > 20_000  # measured: over 1e5 on one core; here a bound for any machine
