"""A device answers with what it learned since the version it holds, within its budget, and keeps the rest."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict

from cdc_flower.downlink import update
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.wire import keys
from cdc_flower.wire.messages import frame_of, message_bytes, payload
from clients.coded import LEFT, left, student, work
from clients.inference import alone

ORDER = {
    "epochs": 2,
    "batch": 2,
    "lr": 1e-2,
    "memory": 0,
    "confidence": 0.0,
    keys.LABELS: "true",
    keys.FULL: False,
    keys.VERSION: 0,
}
BUDGET = 4000


@pytest.fixture
def task(make_task):
    return make_task(0, 1, order=ORDER, **{"uplink.budget": BUDGET})


@pytest.fixture
def held(task):
    return student(task.shared, task.config.pair, False)


def applied(reply: RecordDict, held) -> np.ndarray:
    frame, sizes = frame_of(reply), held.layout.sizes
    flat, version = update.apply(frame, held.initial.flat, 0, held.layout.digest, sizes, BUDGET, 1)
    assert version == 1
    return flat


def test_the_reply_is_a_change_within_the_budget_and_the_rest_is_kept(task, held):
    reply = alone(work(task))
    assert BUDGET / 2 < message_bytes(reply) <= BUDGET
    assert reply[keys.METRICS][keys.EXAMPLES] == 6
    assert reply[keys.CONFIG][keys.DIGEST] == held.initial.digest
    change, rest = applied(reply, held) - held.initial.flat, left(task.store, held.layout.total)
    trained = change + rest
    assert np.abs(trained).max() <= 2 * 6 * 1e-2
    assert np.linalg.norm(change) / np.linalg.norm(trained) > 0.2
    again = alone(work(task))
    np.testing.assert_allclose(
        applied(again, held) - held.initial.flat + left(task.store, held.layout.total),
        trained + rest,
        atol=2e-3,
    )


def test_an_update_is_what_training_begins_with(task, held):
    there = held.initial.flat + np.float32(2.0**-10)
    frame = update.snapshot_frame(there, 1, held.layout.digest)
    task.sent[keys.CONFIG][keys.VERSION] = 1
    task.sent[keys.ARRAYS] = payload(frame)
    reply = alone(work(task))
    assert reply[keys.METRICS][keys.VERSION] == 1
    assert reply[keys.CONFIG][keys.DIGEST] == update.digest(there)
    flat, _ = update.apply(frame_of(reply), there, 1, held.layout.digest, held.layout.sizes, BUDGET, 1)
    assert 0 < np.abs(flat - there).max() < 0.2


def test_a_device_that_could_not_use_what_it_was_sent_does_not_train(task):
    task.sent[keys.CONFIG][keys.VERSION] = 3
    reply = alone(work(task))
    assert not frame_of(reply)
    assert (reply[keys.METRICS][keys.EXAMPLES], reply[keys.METRICS][keys.VERSION]) == (0, 0)
    assert LEFT not in task.store.state


def test_version_0_does_not_depend_on_what_was_trained_before(task, held):
    alone(work(task))
    np.testing.assert_array_equal(held.initial.flat, adapters.read(twin_model(task.shared, task.config.pair)))
