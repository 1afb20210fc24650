"""Generated availability: valid for any fleet, decided by seed and device, shaped like days and nights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost.profiles import CLASSES
from cdc_flower.fleet.time.availability import generate
from cdc_flower.fleet.time.trace_files import frame, from_frame
from cdc_flower.fleet.time.traces import DAY


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(CLASSES), min_size=1, max_size=6),
    st.integers(0, 99),
    st.integers(1, 3),
    st.lists(st.floats(-12, 14), min_size=1, max_size=3),
)
def test_every_generated_trace_passes_the_checks_of_a_file(classes, seed, days, zones):
    trace = generate(classes, seed, days, zones)
    assert trace.period == days * DAY
    checked = from_frame(frame(trace), len(classes), trace.period)
    assert frame(checked).equals(frame(trace))


def test_a_device_has_the_same_days_whatever_the_fleet_and_others_in_another_seed():
    few, many, other = (generate(["phone"] * n, seed, 2) for n, seed in ((3, 0), (50, 0), (3, 1)))
    assert frame(few).equals(frame(many)[frame(many)["device"] < 3].reset_index(drop=True))
    assert not frame(few).equals(frame(other))


def eligible(trace, hour: float) -> float:
    return trace.suitable(hour * 3600, need_charging=True, need_idle=True).mean()


def test_phones_are_eligible_at_night_and_their_number_swings_by_about_four():
    trace = generate(["phone"] * 1500, 0, 1)
    night, day = eligible(trace, 3), np.mean([eligible(trace, hour) for hour in (11, 13, 15, 17)])
    assert night > 0.9
    assert 3 < night / day < 6


def test_a_time_zone_moves_the_night():
    here, east = generate(["phone"] * 800, 0, 1), generate(["phone"] * 800, 0, 1, [12.0])
    assert eligible(here, 3) == pytest.approx(eligible(east, 15), abs=0.01)
    assert eligible(east, 3) < 0.5


def test_boards_are_there_but_for_rare_outages():
    trace = generate(["board"] * 300, 0, 2)
    assert 0.98 < np.mean(trace.online_per_period) / trace.period < 1
    assert trace.charging.all()
    assert trace.idle.all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([], 0), "0 devices"),
        ((["phone"], 0, 0), "0 days"),
        ((["phone"], 0, 1, []), "zones"),
        ((["phone"], 0, 1, [15.0]), "-12 to 14"),
    ],
)
def test_what_cannot_be_generated_is_refused(arguments, named):
    with pytest.raises(ConfigError, match=named):
        generate(*arguments)
