"""Device-tasks: what takes longer never ends earlier; every second and joule belongs to one phase."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.fleet.cost.mixes import fleet
from cdc_flower.fleet.time.availability import generate
from cdc_flower.fleet.time.tasks import Tasks, draws, plan, spent

N = 40
FLEET = fleet("phone-mid=40%,phone-old=20%,pi4=20%,laptop=20%", N, 0)
TRACE = generate(FLEET.classes, 0, 1, [-6.0, 0.0, 6.0])


@settings(max_examples=30)
@given(st.floats(0, 1e7), st.floats(0, 1e7), st.floats(0, 1e4))
def test_more_bytes_and_more_work_never_end_earlier(down, up, work):
    def finish(down: float, work: float, up: float) -> np.ndarray:
        asked = Tasks(np.arange(N), np.full(N, down), np.full(N, work), np.full(N, up))
        return plan(asked, FLEET, TRACE, 500.0, 1).finish

    base = finish(down, work, up)
    for more in (finish(down + 1000, work, up), finish(down, work + 10, up), finish(down, work, up + 1000)):
        assert (more >= base - 1e-6).all()


@pytest.mark.parametrize(
    "bad",
    [
        (np.array([1, 0]), [0, 0], [0, 0], [0, 0]),
        (np.array([0, 0]), [0, 0], [0, 0], [0, 0]),
        (np.array([0, 1]), [0, -1], [0, 0], [0, 0]),
        (np.array([0, 1]), [0, 0], [0, math.nan], [0, 0]),
        (np.array([0, 1]), [0, 0], [0, 0], [0, math.inf]),
        (np.array([0, 1]), [0, 0], [0, 0], [0]),
    ],
)
def test_tasks_out_of_order_or_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="of a round must"):
        Tasks(bad[0], *(np.array(column, float) for column in bad[1:]))


def test_work_without_end_never_ends_and_is_charged_until_it_is_given_up():
    begun = plan(Tasks(np.arange(N), np.zeros(N), np.full(N, math.inf), np.ones(N)), FLEET, TRACE, 500.0, 1)
    assert np.isinf(begun.finish).all()
    used = spent(begun, TRACE, np.full(N, 530.0), np.full(N, 537.0))
    assert (set(used.work), set(used.upload), set(used.wait)) == ({30.0}, {0.0}, {7.0})


@settings(max_examples=30)
@given(st.floats(0, 1e7), st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_task_given_up_at_any_moment_has_drawn_what_its_phases_took(down, work, lasts):
    begun = plan(
        Tasks(np.arange(N), np.full(N, down), np.full(N, work), np.full(N, down)), FLEET, TRACE, 500.0, 1
    )
    cut = np.minimum(begun.finish, 500.0 + lasts)
    used = spent(begun, TRACE, cut, cut + 7.0)
    np.testing.assert_allclose(used.download + used.work + used.upload + used.offline, cut - 500.0, atol=1e-6)
    np.testing.assert_allclose(used.wait, 7.0)
    drawn = draws(begun, FLEET, TRACE, cut)
    above_idle = (used.download + used.upload) * (FLEET.radio_power - FLEET.idle_power)
    above_idle += used.work * (FLEET.compute_power - FLEET.idle_power)
    energy = np.bincount(drawn.device, drawn.watts * (drawn.end - drawn.begin), N)
    np.testing.assert_allclose(energy, above_idle, rtol=1e-6, atol=1e-6)
