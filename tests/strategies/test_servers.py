"""Each optimiser does what its paper says of few numbers, and goes on from its moments bit for bit."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest

from strategies.fedavg import FedAvgSettings
from strategies.servers import MOMENTUM, SERVERS, Server


@pytest.fixture(autouse=True)
def _messages_can_be_made(fake_devices):
    list(fake_devices(lambda *_: None).get_node_ids())


NOW = np.array([1.0, -2.0, 0.5], np.float32)
STEPS = np.random.default_rng(0).normal(0, 0.1, (4, 3)).astype(np.float32)


def walked(server: Server, steps=STEPS, now=NOW, first: int = 1) -> np.ndarray:
    for round, step in enumerate(steps, first):
        now = server.step(round, now, now + step)
    return now


def test_the_settings_names_are_the_registrys():
    assert get_args(get_type_hints(FedAvgSettings)["server"]) == tuple(SERVERS)


def test_the_mean_is_the_average_itself_and_a_rate_scales_its_step():
    assert Server().step(1, NOW, NOW + STEPS[0]) is not None
    np.testing.assert_array_equal(Server().step(1, NOW, NOW + STEPS[0]), NOW + STEPS[0])
    np.testing.assert_allclose(
        Server("mean", 0.5).step(1, NOW, NOW + STEPS[0]), NOW + STEPS[0] / 2, atol=1e-6
    )


def test_momentum_adds_what_is_left_of_earlier_steps():
    moved, sum_ = np.zeros(3), np.zeros(3)
    for step in STEPS:
        sum_ = MOMENTUM * sum_ + step
        moved += 0.3 * sum_
    np.testing.assert_allclose(walked(Server("momentum")) - NOW, moved, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "yogi"])
def test_adaptive_steps_are_bounded_by_the_rate_whatever_the_size_of_the_average(name):
    for size in (1.0, 1e3):
        moved = np.abs(Server(name, 0.01).step(1, NOW, NOW + size) - NOW)
        assert (moved > 0.005).all()
        assert (moved < 0.02).all()


@pytest.mark.parametrize("name", list(SERVERS))
def test_a_server_goes_on_from_its_state_bit_for_bit(name):
    whole, first = walked(Server(name)), Server(name)
    middle = walked(first, STEPS[:2])
    second = Server(name)
    second.load(first.state())
    np.testing.assert_array_equal(walked(second, STEPS[2:], middle, 3), whole)
    assert whole.dtype == np.float32
    fresh = Server(name)
    fresh.load(Server(name).state())
    np.testing.assert_array_equal(walked(fresh), whole)


def test_moments_of_another_optimiser_are_refused():
    first = Server("momentum")
    walked(first)
    with pytest.raises(KeyError):
        Server("adam").load(first.state())
