"""A device by itself trains as one of FedAvg does, and goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict

from cdc_flower.models import adapters
from cdc_flower.wire import keys
from clients.fedavg import fit, memory, trainee
from clients.inference import alone
from clients.local import untrained, work
from clients.store import Store

ORDER = {"epochs": 1, "batch": 4, "lr": 1e-2, "memory": 4, keys.LABELS: "true", keys.FULL: False}


def test_two_rounds_are_two_trainings_of_fedavg_without_an_average(make_task):
    store = Store(RecordDict())
    tasks = [make_task(0, round, order=ORDER, store=store) for round in (1, 2)]
    said = [alone(work(task)) for task in tasks]
    assert [list(reply) for reply in said] == [[keys.METRICS]] * 2
    assert [reply[keys.METRICS][keys.EXAMPLES] for reply in said] == [6, 10]
    pair = tasks[0].shared, tasks[0].config.pair
    model, begin = trainee(*pair, False), untrained(*pair)
    adapters.write(model, begin.flat)
    for task in tasks:
        items = memory(task)
        fit(task, model, task.tokens(items), task.questions(items), task.labels(items), task.grids(items))
    held = store.held(begin)
    assert held.version == 2
    np.testing.assert_array_equal(held.flat, adapters.read(model))


def test_without_leave_to_read_labels_nothing_is_learned(make_task):
    with pytest.raises(PermissionError, match="labels are for methods"):
        alone(work(make_task(order={**ORDER, keys.LABELS: "own"})))
