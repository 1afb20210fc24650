"""Each device's line is its own: what it lacks goes down, what a codec left out goes with the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Mirror
from cdc_flower.models.adapters import Layout
from strategies.lines import Lines

LAYOUT: Any = Layout(("weight",), ((400,),))
START = np.zeros(400, np.float32)


@pytest.fixture
def lines():
    return Lines(lambda: Mirror(START, LAYOUT, "dyadic", 200, 4))


def target(seed):
    return (np.random.default_rng(seed).integers(-64, 64, 400) / 64).astype(np.float32)


def test_two_devices_come_to_adapters_of_their_own_and_nearer_with_each_message(lines):
    held = {3: (START, 0), 5: (START, 0)}
    apart = {3: [], 5: []}
    for _ in range(3):
        for device in held:
            assert lines.advance(device, target(device)) is not None
            frame = lines[device].frame_for(device)
            assert len(frame) <= 200
            flat, version = held[device]
            held[device] = update.apply(frame, flat, version, LAYOUT.digest, LAYOUT.sizes, 10**6)
            lines[device].heard(device, held[device][1], update.digest(held[device][0]))
            np.testing.assert_array_equal(held[device][0], lines[device].newest())
            apart[device].append(float(np.abs(held[device][0] - target(device)).sum()))
    for steps in apart.values():
        assert steps == sorted(steps, reverse=True)
        assert steps[-1] < steps[0]


def test_a_device_that_is_there_gets_no_version(lines):
    assert lines.advance(1, START) is None
    assert lines[1].mirror.newest == 0
    assert lines[1].frame_for(1) is None


def test_its_state_brings_back_every_line(lines):
    lines.advance(3, target(3))
    lines[3].frame_for(3)
    lines.advance(5, target(5))
    lines[5].heard(5, 0, update.digest(START))
    again = Lines(lines.begin)
    again.load(lines.state())
    for device in (3, 5):
        np.testing.assert_array_equal(again[device].newest(), lines[device].newest())
        assert again[device].frame_for(device) == lines[device].frame_for(device)
    lost = {3: update.digest(lines[3].newest()), 5: b"87654321", 9: b"12345678"}
    assert list(again.restored(lost)) == [lost[3]]
