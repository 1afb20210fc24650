"""A portion of the adapter learns, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict

from cdc_flower.models import adapters
from cdc_flower.models.adapters import HEAD
from cdc_flower.models.student import twin_model
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from clients.fedavg import memory, trainee
from clients.inference import alone
from clients.local import untrained, work
from clients.portions import first, kind, portion, tuned
from clients.store import Store

ORDER = {"epochs": 2, "batch": 4, "lr": 1e-2, "memory": 40, keys.LABELS: "true", keys.FULL: False}


def at_head(task):
    layout = adapters.layout(trainee(task.shared, task.config.pair, False))
    return np.concatenate(
        [np.full(size, HEAD in name) for name, size in zip(layout.names, layout.sizes, strict=True)]
    )


def test_all_of_the_adapter_from_all_samples_is_the_training_of_local(make_task):
    found = []
    for made in (work, lambda task: tuned(task, "all", 0)):
        store = Store(RecordDict())
        said = alone(made(make_task(1, order=ORDER, store=store)))[keys.METRICS]
        found.append(({k: v for k, v in said.items() if k != keys.SECONDS}, store.held(None).digest))
    assert found[0] == found[1]


def test_the_head_alone_moves_and_gradients_go_back_from_answers_alone(make_task):
    store = Store(RecordDict())
    task = make_task(order=ORDER, store=store)
    before = untrained(task.shared, task.config.pair)
    (metrics,) = alone(tuned(task, "head", 0)).values()
    moved = store.held(before).flat != before.flat
    assert moved[at_head(task)].mean() > 0.4  # LoRA's B at once, A a step later
    assert not moved[~at_head(task)].any()
    steps = sum(len(ids) + 1 for ids in task.labels(task.items)) * ORDER["epochs"]
    assert Counts.of(metrics).trained == steps
    part = portion(task.shared, task.config.pair, "head")
    twin = twin_model(task.shared, task.config.pair)
    assert len(part.places) == at_head(task).sum() == sum(p.numel() for p in adapters.trainable(part.model))
    assert len(adapters.read(twin)) == len(at_head(task))


def test_what_one_device_trained_is_not_in_another_ones_adapter(make_task):
    stores = [Store(RecordDict()) for _ in range(3)]
    for device, store in zip((0, 1, 0), stores, strict=True):
        alone(tuned(make_task(device, order={**ORDER, "epochs": 1}, store=store), "head", 1))
    digests = [store.held(None).digest for store in stores]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("most", [1, 2])
def test_of_each_kind_of_question_the_first_samples_are_labelled(most, make_task):
    task = make_task(round=3, order=ORDER)
    items, every = first(task, most).tolist(), memory(task).tolist()
    kinds = [kind(task.source.question(item)) for item in every]
    for of in set(kinds):
        mine = [item for item, name in zip(every, kinds, strict=True) if name == of]
        assert [item for item in items if kind(task.source.question(item)) == of] == mine[:most]
    assert len(items) < len(every)
    assert first(task, 0).tolist() == every


def test_labels_stay_those_of_the_first_samples_however_long_a_run_is(make_task):
    labelled = set[int]()
    for round in range(1, 4):
        task = make_task(round=round, order={**ORDER, "memory": 6})
        now = first(task, 1)
        assert len(now) <= len(memory(task))
        labelled |= set(now.tolist())
    kinds = [kind(task.source.question(item)) for item in labelled]
    assert len(kinds) == len(set(kinds)) > 1
