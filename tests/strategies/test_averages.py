"""The rules do what their papers say of few numbers, and no gradients take AdamW further than `furthest`."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict

from strategies.averages import AVERAGES, beyond, furthest
from strategies.fedavg import FedAvgSettings


def test_the_settings_names_are_the_registrys():
    assert get_args(get_type_hints(FedAvgSettings)["average"]) == tuple(AVERAGES)


@pytest.fixture(autouse=True)
def _messages_can_be_made(fake_devices):
    list(fake_devices(lambda *_: None).get_node_ids())


def averaged(name, rows, hostile=1):
    rule = AVERAGES[name]
    messages = [
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({"p": Array(np.asarray(row, np.float32))}),
                    "metrics": MetricRecord({"num-examples": 1, "loss": 0.0}),
                }
            ),
            dst_node_id=0,
            message_type=MessageType.TRAIN,
        )
        for row in rows
    ]
    arrays, _ = rule.make(hostile, len(rows)).aggregate_train(1, messages)
    return None if arrays is None else arrays["p"].numpy()


HONEST = [[1.0, 2.0], [1.1, 2.1], [0.9, 1.9], [1.05, 1.95], [0.95, 2.05], [1.0, 2.0]]


@pytest.mark.parametrize("name", [name for name in AVERAGES if name != "mean"])
def test_one_hostile_device_of_seven_moves_the_mean_and_no_robust_rule(name):
    rows = [*HONEST, [-1e4, 1e4]]
    assert abs(averaged("mean", rows) - [1, 2]).max() > 1000
    assert abs(averaged(name, rows) - [1, 2]).max() < 0.15


def test_each_rule_is_that_of_its_name():
    rows = [[0.0], [1.0], [2.0], [3.0], [4.0], [50.0], [60.0]]
    assert averaged("median", rows) == pytest.approx([3])
    assert averaged("trimmed-mean", rows, 2) == pytest.approx([3])
    assert averaged("trimmed-mean", rows, 0) == pytest.approx([120 / 7])
    assert averaged("krum", rows, 2)[0] in (1, 2, 3)
    assert averaged("multi-krum", rows, 2) == pytest.approx([2])
    assert averaged("bulyan", rows) == pytest.approx([2])  # three nearest the median of those not 50 or 60


MOST = {"mean": 0, "bulyan": 1}  # Flower's Bulyan takes a second a hostile device


@pytest.mark.parametrize(
    ("name", "hostile"), [(name, n) for name in AVERAGES for n in range(4) if n <= MOST.get(name, 3)]
)
def test_as_many_answers_as_it_needs_are_enough(name, hostile):
    need = AVERAGES[name].needs(hostile)
    rng = np.random.default_rng(0)
    honest, lies = rng.normal(size=(need - hostile, 3)), np.full((hostile, 3), 1e6)
    got = averaged(name, [*honest, *lies], hostile)
    assert got is not None
    assert np.abs(got).max() <= np.abs(honest).max() + 1e-6


GRADIENTS = {
    "constant": lambda t, rng: torch.ones(4),
    "chance": lambda t, rng: torch.from_numpy(rng.standard_normal(4)).float(),
    "rising": lambda t, rng: torch.full((4,), 1.11**t),  # what the bound is sharp for
    "falling": lambda t, rng: torch.full((4,), 0.5**t),
    "silent, then loud": lambda t, rng: torch.full((4,), 1e-6 if t < 30 else 1e3),
}


@pytest.mark.parametrize("kind", list(GRADIENTS))
@pytest.mark.parametrize("steps", [1, 2, 12, 60])
def test_no_gradients_take_adamw_further(kind, steps):
    weight, rng = torch.nn.Parameter(torch.zeros(4)), np.random.default_rng(0)
    optimizer = torch.optim.AdamW([weight], lr=3e-3, weight_decay=0.0)
    for t in range(steps):
        weight.grad = GRADIENTS[kind](t, rng)
        optimizer.step()
    assert float(weight.detach().abs().max()) <= furthest(steps, 3e-3)


def test_the_bound_is_near_what_can_be_reached():
    assert furthest(1, 1.0) == pytest.approx(1, rel=2e-3)
    assert 12 < furthest(12, 1.0) < 14
    assert furthest(0, 1.0) == 0
    assert furthest(12, 2.0) == pytest.approx(2 * furthest(12, 1.0))


def test_what_was_rounded_to_half_precision_is_not_beyond():
    start = np.random.default_rng(0).standard_normal(1000).astype(np.float16)
    for change in (0.01, -0.01):
        assert beyond((start.astype(np.float32) + np.float32(change)).astype(np.float16), start, 0.01) == 0
    far = start.copy()
    far[7] += 0.05
    assert beyond(far, start, 0.01) == 1
