"""The FedAvg family averages as FedAvg does, in float16 on the wire, and does not swallow poison."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from torch import nn

from cdc_flower.config import ConfigError, parse
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.wire.fields import LARGEST
from strategies.averages import AVERAGES, furthest
from strategies.devices import FleetError
from strategies.fedavg import FedAvgFull, FedAvgLora, FedAvgSettings
from strategies.fedprox import FedProxLora
from strategies.fleet import Fleet
from strategies.method import Setup
from strategies.servers import SERVERS


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 1 / 3]))


@pytest.fixture
def devices(fake_devices):
    """`devices(answer, heard=None)`: a grid of three; `answer(device, weights float16) -> (array, examples)`;
    `heard` collects the configs.
    """

    def make(answer, heard=None, loss=lambda device: 1.0):
        def train(device, content):
            if heard is not None:
                heard.append(dict(content["config"]))
            weights = content["arrays"]["p"].numpy()
            assert weights.dtype == np.float16
            flat, examples = answer(device, weights)
            metrics = MetricRecord({"num-examples": examples, "loss": loss(device)})
            return RecordDict({"arrays": ArrayRecord({"p": Array(flat)}), "metrics": metrics})

        return fake_devices(train)

    return make


LOOSE = FedAvgSettings(lr=1e6, memory=64)  # with it a device may answer anything


def fedavg(kind=FedAvgLora, own=LOOSE, **more):
    fleet = Fleet(devices=3, seed=0, share=1.0, min_devices=1)
    return kind(**more).bind(fleet, Model(), own, samples=8)


def test_the_average_is_weighted_by_examples_in_float32(devices):
    replies = {d: np.array([d, 0.1, 1000 + d], np.float16) for d in range(3)}
    strategy = fedavg()
    result = strategy.start(
        devices(lambda d, w: (replies[d], d + 1)), strategy.initial_arrays(), num_rounds=1
    )
    expected = sum(replies[d].astype(np.float32) * (d + 1) / 6 for d in range(3))
    got = result.arrays["p"].numpy()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "poison",
    [
        np.array([np.nan, 0, 0], np.float16),
        np.array([np.inf, 0, 0], np.float16),
        np.zeros(3, np.float32),
        np.zeros(2, np.float16),
        np.zeros((1, 3), np.float16),
    ],
)
def test_a_reply_that_cannot_be_averaged_is_refused_and_counted(devices, poison):
    strategy = fedavg()
    good = np.ones(3, np.float16)
    grid = devices(lambda d, w: (poison if d == 1 else good, 1))
    result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    np.testing.assert_array_equal(result.arrays["p"].numpy(), np.ones(3, np.float32))
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["ok", "refused", "ok"]


def test_devices_without_a_lesson_do_not_count_in_the_average(devices):
    strategy = fedavg()
    grid = devices(lambda d, w: (np.full(3, d, np.float16), int(d == 2)))
    result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    np.testing.assert_array_equal(result.arrays["p"].numpy(), np.full(3, 2, np.float32))


def test_when_nobody_learned_the_weights_stay(devices):
    strategy = fedavg()
    received = []
    grid = devices(lambda d, w: (received.append(w) or w, 0))
    strategy.start(grid, strategy.initial_arrays(), num_rounds=2)
    np.testing.assert_array_equal(received[-1], Model().w.detach().numpy().astype(np.float16))


def test_when_all_are_refused_the_run_stops_instead_of_going_on_with_old_weights(devices):
    strategy = fedavg()
    with pytest.raises(FleetError, match="round 1: 0 of 3 devices answered"):
        strategy.start(devices(lambda d, w: (np.full(3, np.nan, np.float16), 1)), strategy.initial_arrays())


def test_fedprox_tells_the_devices_mu_and_fedavg_does_not(devices):
    for kind, more, mu in ((FedProxLora, {"proximal_mu": 0.25}, 0.25), (FedAvgLora, {}, None)):
        heard: list[dict] = []
        strategy = fedavg(kind, **more)
        strategy.start(devices(lambda d, w: (w, 1), heard), strategy.initial_arrays(), num_rounds=1)
        assert [h.get("proximal-mu") for h in heard] == [mu] * 3
        assert heard[0]["server-round"] == 1


def test_both_directions_cost_two_bytes_a_weight_and_an_envelope(devices):
    strategy = fedavg()
    strategy.start(devices(lambda d, w: (w, 1)), strategy.initial_arrays(), num_rounds=1)
    row = strategy.fleet.ledger.rows()[0]
    assert 6 < row.uplink_bytes < 6 + 400
    assert 6 < row.downlink_bytes < 6 + 400


@pytest.mark.parametrize(
    "examples", [2**62, 8 + 64 + 1, -1, 1.0, float("inf"), float("nan"), [1], [1, 2], []]
)
def test_no_number_of_examples_makes_a_device_own_the_average(devices, examples):
    strategy = fedavg()
    grid = devices(lambda d, w: (np.full(3, d, np.float16), examples if d == 1 else 8 + 64))
    result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    np.testing.assert_array_equal(result.arrays["p"].numpy(), np.ones(3, np.float32))  # of 0 and 2
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["ok", "refused", "ok"]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), [1.0]])
def test_a_loss_that_is_no_finite_number_costs_that_device_alone(devices, loss):
    strategy = fedavg()
    grid = devices(lambda d, w: (np.full(3, d, np.float16), 1), loss=lambda d: loss if d == 1 else LARGEST)
    result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    np.testing.assert_array_equal(result.arrays["p"].numpy(), np.ones(3, np.float32))
    assert np.isfinite(strategy.metrics["loss"])


def test_a_device_moves_a_weight_no_further_than_its_training_could(devices):
    own = FedAvgSettings(epochs=3, batch=4, lr=0.01)
    strategy = fedavg(own=own)
    most = furthest(3 * 2, 0.01)  # 5 examples in batches of 4
    steps = {0: 0.99, 1: 1.03, 2: -0.99}
    grid = devices(lambda d, w: ((w.astype(np.float32) + most * steps[d]).astype(np.float16), 5))
    result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["ok", "refused", "ok"]
    start = Model().w.detach().numpy().astype(np.float16)
    np.testing.assert_allclose(result.arrays["p"].numpy(), start, atol=1e-3)


@pytest.mark.parametrize(("kind", "more"), [(FedAvgLora, {}), (FedProxLora, {"proximal_mu": 0.1})])
def test_a_robust_average_bears_a_hostile_device_and_the_mean_does_not(devices, kind, more):
    def after(average):
        strategy = fedavg(kind, FedAvgSettings(lr=1e6, average=average), **more)
        grid = devices(lambda d, w: (np.full(3, 2 + d / 8 if d else -1000, np.float16), 1))
        return strategy.start(grid, strategy.initial_arrays(), num_rounds=2).arrays["p"].numpy()

    assert after("mean").max() < -300
    for average in ("median", "trimmed-mean"):
        np.testing.assert_allclose(after(average), np.full(3, 2.125))


def test_with_fewer_answers_than_the_average_needs_the_weights_stay(devices):
    strategy = fedavg(own=FedAvgSettings(lr=1e6, average="trimmed-mean"))
    received = []
    grid = devices(lambda d, w: (received.append(w) or np.full(3, np.nan if d == 2 else 5, np.float16), 1))
    strategy.start(grid, strategy.initial_arrays(), num_rounds=2)
    np.testing.assert_array_equal(received[-1], Model().w.detach().numpy().astype(np.float16))
    np.testing.assert_array_equal(strategy.adapter_of(0), Model().w.detach().numpy())
    assert strategy.metrics == {"answered": 2, "taught_devices": 2}


def test_a_running_mean_is_shipped_and_the_weights_go_on(devices):
    strategy = fedavg(own=FedAvgSettings(lr=1e6, ema_decay=0.75))
    received = []
    grid = devices(lambda d, w: (received.append(w) or np.full(3, len(received) // 3 * 4, np.float16), 1))
    start = Model().w.detach().numpy()
    result = strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    averaged = (0 + 0 + 4) / 3
    np.testing.assert_allclose(result.arrays["p"].numpy(), 0.75 * start + 0.25 * averaged, atol=1e-3)
    strategy.configure_train(2, result.arrays, {}, grid)
    np.testing.assert_allclose(strategy.way.start, np.full(3, averaged), atol=1e-3)


def test_the_servers_own_steps_are_its_work_and_more_where_all_weights_learn():
    own = FedAvgSettings(replay_steps=20, batch=8)
    assert fedavg().cloud_work(5) == CloudWork()
    assert fedavg(own=own).cloud_work(0) == CloudWork(0, 20, 8)
    assert fedavg(FedAvgFull, own).cloud_work(0) == CloudWork(0, 20, 12)


def test_every_optimiser_of_the_server_stands_behind_every_average(devices):
    for server in SERVERS:
        strategy = fedavg(own=FedAvgSettings(lr=1e6, average="median", server=server))
        grid = devices(lambda d, w: (w + np.float16(1 if d else -1000), 1))
        moved = strategy.start(grid, strategy.initial_arrays(), num_rounds=2).arrays["p"].numpy()
        assert (moved > Model().w.detach().numpy()).all()
        assert (moved < 4).all()


@pytest.mark.parametrize("average", list(AVERAGES))
def test_an_average_that_a_round_cannot_feed_is_refused_at_the_start(average):
    need = AVERAGES[average].needs(2)
    settings = {"fedavg.average": average, "fedavg.hostile": 2, "run.cohort": 0.5}

    def check(devices):
        FedAvgLora.check(Setup(parse({**settings, "run.devices": devices}), None, None, None))

    check(2 * need)
    if average != "mean":
        with pytest.raises(ConfigError, match=f"'{average}' with 'fedavg.hostile' = 2 needs {need} answers"):
            check(2 * need - 1)
