"""Transfer times: the limits that must hold, monotony, and the formulas written out once more."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.fleet.cost.profiles import Devices, read_profiles
from cdc_flower.fleet.time.network import down_seconds, goodput, transfer_seconds, up_seconds

sizes = st.integers(1, 10**10)
lines = st.tuples(st.floats(1e4, 1e10), st.floats(1e-4, 2.0), st.floats(0, 0.5))


def by_hand(size: int, bandwidth: float, rtt: float, loss: float) -> float:
    """The model once more, window by window."""
    rate = bandwidth / 8 * (1 - loss) * 1460 / 1500
    if loss:
        rate = min(rate, 1460 / rtt * math.sqrt(3 / (2 * loss)))
    time, sent, window = rtt, 0.0, 14600.0
    while sent + window < size and window / rate < rtt:
        time, sent, window = time + rtt, sent + window, 2 * window  # wait for the window's acknowledgement
    return time + (size - sent) / rate


@settings(max_examples=100)
@given(sizes, lines)
def test_a_transfer_takes_what_a_loop_over_its_windows_says(size, line):
    assert transfer_seconds(size, *line) == pytest.approx(by_hand(size, *line), rel=1e-9)


@settings(max_examples=100)
@given(sizes, sizes, lines)
def test_more_bytes_take_longer_and_never_less_than_the_line_allows(size, more, line):
    bandwidth, rtt, _ = line
    time = transfer_seconds(size, *line)
    assert transfer_seconds(size + more, *line) > time
    assert time >= rtt + 8 * size / bandwidth


@settings(max_examples=100)
@given(sizes, lines, st.floats(1, 100))
def test_a_better_line_is_never_slower(size, line, factor):
    bandwidth, rtt, loss = line
    time = transfer_seconds(size, *line) * (1 + 1e-9)
    assert transfer_seconds(size, bandwidth * factor, rtt, loss) <= time
    assert transfer_seconds(size, bandwidth, rtt / factor, loss) <= time
    assert transfer_seconds(size, bandwidth, rtt, loss / factor) <= time


def test_nothing_takes_no_time():
    assert transfer_seconds(0, 1e6, 0.05, 0.01) == 0


def test_lost_packets_are_sent_again_and_cap_the_rate():
    lossless = goodput(1e6, 0.05, 0.0)
    assert goodput(1e6, 0.05, 0.01) == pytest.approx(0.99 * lossless)  # p / (1 - p) of the packets again
    assert goodput(1e12, 0.05, 0.01) == pytest.approx(1460 / 0.05 * math.sqrt(150))  # Mathis et al.


def test_all_devices_at_once_and_each_direction_with_its_own_bandwidth():
    profiles = list(read_profiles().values())
    devices = Devices.of(profiles)
    np.testing.assert_array_equal(up_seconds(devices, 20_000), [up_seconds(p, 20_000) for p in profiles])
    size = np.arange(len(profiles)) * 1000
    np.testing.assert_array_equal(
        down_seconds(devices, size), [down_seconds(p, s) for p, s in zip(profiles, size, strict=True)]
    )
    up, down = up_seconds(devices, 10**7), down_seconds(devices, 10**7)
    assert (up >= down).all()  # equal where loss and not the line bounds both
    assert (up > down).any()
