"""The gate on the wire: what goes down comes back, nothing else is read, both sides see the same."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from cdc_flower.wire import gate
from cdc_flower.wire.frame import FrameError


def drawn(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, gate.WEIGHTS)


def test_weights_come_back_within_half_a_step():
    for weights in (drawn(), drawn(1) * 1e-3, np.zeros(gate.WEIGHTS), drawn() * 100):
        data = gate.pack(weights)
        assert len(data) == gate.BYTES == 75
        clipped = weights.clip(-gate.LARGEST, gate.LARGEST)
        np.testing.assert_allclose(gate.unpack(data), clipped, atol=0.55 * np.abs(clipped).max() / 127)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (gate.pack(drawn())[:-1], "74 bytes; allowed: 75"),
        (gate.pack(drawn()) + b"\0", "76 bytes"),
        ("x" * gate.BYTES, "str; allowed"),
        (7, "int; allowed"),
        (b"\x02" + gate.pack(drawn())[1:], "layout 2"),
        (struct.pack("<Be", 1, np.inf) + bytes(gate.WEIGHTS), "scale inf"),
        (struct.pack("<Be", 1, np.nan) + bytes(gate.WEIGHTS), "scale nan"),
        (struct.pack("<Be", 1, -0.1) + bytes(gate.WEIGHTS), "scale -0"),
        (struct.pack("<Be", 1, 0.5) + bytes(gate.WEIGHTS), "scale 0.5"),
        (struct.pack("<Be", 1, 0.1) + b"\x80" * gate.WEIGHTS, "weight -128"),
    ],
)
def test_what_was_not_packed_is_refused(data, why):
    with pytest.raises(FrameError, match=why):
        gate.unpack(data)


@pytest.mark.parametrize("weights", [np.zeros(3), np.full(gate.WEIGHTS, np.nan)])
def test_what_no_device_would_read_is_not_packed(weights):
    with pytest.raises(ValueError, match="finite weights"):
        gate.pack(weights)


def test_features_are_the_documented_ones_and_lie_in_the_table():
    assert gate.features([5, 9], [3, 4], 0.02) == [44, 48, 49, 13, 54, 57, 66]
    assert gate.features([], [], 0.0)[-1] == gate.BUCKETS
    assert gate.features([2**31 - 1] * 3, [2**31 - 1], np.inf)[-1] == gate.WEIGHTS - 1
    assert all(0 <= place < gate.BUCKETS for i in range(999) for place in gate.features([i], [i], 0.2)[:-1])


def test_the_cloud_reads_the_features_that_the_device_had():
    """An entropy goes up as f16: near an edge both must fall to one side."""
    for edge in gate.EDGES:
        for doubt in np.nextafter(edge, [0, 9]):
            assert gate.features([1], [2], float(doubt)) == gate.features([1], [2], float(np.float16(doubt)))


def test_a_chance_is_that_of_the_log_odds_and_never_overflows():
    weights = np.zeros(gate.WEIGHTS)
    weights[3] = np.log(4)
    np.testing.assert_allclose(gate.chance(weights, [[3], [0], [3, 3]]), [4 / 5, 1 / 2, 16 / 17])
    np.testing.assert_allclose(gate.chance(weights * 1e3, [[3], [4]]), [1, 1 / 2], atol=1e-9)
