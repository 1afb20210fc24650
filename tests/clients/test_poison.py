"""A device that means harm answers in form, within what its checks let through, and not as honest ones do."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.uplink import token_batch
from cdc_flower.wire import keys
from cdc_flower.wire.messages import frame_of
from clients import cdc, poison
from clients.fedavg import work
from clients.inference import alone
from strategies.averages import beyond, furthest
from strategies.run import run_local

ORDER = {
    "epochs": 1,
    "batch": 8,
    "lr": 1e-2,
    "memory": 0,
    "confidence": 0.0,
    keys.LABELS: "true",
    keys.FULL: False,
}


def test_devices_are_numbers_in_a_list():
    assert poison.devices("") == set()
    assert poison.devices("1, 4") == {1, 4}


def test_weights_go_against_training_as_far_as_steps_can(make_task):
    task = make_task(order=ORDER)
    start = adapters.read(twin_model(task.shared, task.config.pair)).astype(np.float16)
    task.sent[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(start)})
    honest = alone(work(task))[keys.ARRAYS][keys.PAYLOAD].numpy().astype(np.float32) - start
    reply = poison.poisoned(task, alone(work(task)))
    flat = reply[keys.ARRAYS][keys.PAYLOAD].numpy()
    harm = flat.astype(np.float32) - start
    assert flat.dtype == np.float16
    assert beyond(flat, start, furthest(1, ORDER["lr"])) == 0  # 6 samples, one step
    assert np.median(np.abs(harm)[honest != 0]) == pytest.approx(ORDER["lr"], rel=0.05)
    assert (harm * honest <= 0).all()
    assert np.linalg.norm(harm) >= np.linalg.norm(honest)


def test_tokens_are_noise_within_the_budget_and_the_rest_is_as_it_was(make_task):
    task = make_task()
    frames = [
        frame_of(some) for some in (alone(cdc.work(task)), poison.poisoned(task, alone(cdc.work(task))))
    ]
    shared = task.shared
    honest, harmful = (
        token_batch.decode(frame, shared.fits, shared.width, shared.vocab, 2**20, transform=shared.transform)
        for frame in frames
    )
    assert len(frames[1]) <= task.config.uplink.budget
    assert 1 <= len(harmful.samples) <= len(honest.samples)
    for a, b in zip(honest.samples, harmful.samples, strict=False):
        assert (a.index, a.question_ids, a.positions.tolist()) == (
            b.index,
            b.question_ids,
            b.positions.tolist(),
        )
        assert np.linalg.norm(a.tokens - b.tokens) > 0.5 * np.linalg.norm(a.tokens)


@pytest.mark.parametrize(("method", "harmful"), [("cdc", "1:sybil"), ("fedavg_lora", "1")])
def test_a_poisoner_is_not_refused_and_changes_what_is_learned(method, harmful, run_settings, tmp_path):
    found = []
    for name, devices in (("honest", ""), ("poisoned", harmful)):
        out = str(tmp_path / name)
        settings = run_settings(method=method, rounds=2, eval_every=1, poison_devices=devices, out_dir=out)
        found.append(results.read(run_local(parse(settings))))
    assert {status for run in found for status in run.devices["status"]} == {"ok"}
    losses = [run.metrics[run.metrics["name"].str.contains("loss")]["value"].tolist() for run in found]
    assert len(losses[0]) > 0
    assert losses[0] != losses[1]
