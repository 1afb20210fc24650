"""A device trains its patch alone, and wears it on whatever the cloud sends."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from cdc_flower.models import adapters
from cdc_flower.wire import keys
from clients.dccl import basis, patch, work
from clients.fedavg import trainee
from clients.inference import alone
from clients.store import Store

ORDER = {"epochs": 1, "batch": 4, "lr": 0.03, "memory": 4, "patch": 16, keys.LABELS: "true", keys.FULL: False}


def asked(make_task, store, flat=None, round=1, **order):
    task = make_task(round=round, order={**ORDER, **order}, store=store)
    base = adapters.read(trainee(task.shared, task.config.pair, False)) if flat is None else flat
    task.sent[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(base.astype(np.float16))})
    return task


def test_what_goes_up_is_what_the_device_keeps_and_answers_with(make_task):
    store = Store(RecordDict())
    first = asked(make_task, store)
    flat = (
        adapters.read(trainee(first.shared, first.config.pair, False)).astype(np.float16).astype(np.float32)
    )
    sent = alone(work(first))[keys.ARRAYS][keys.PAYLOAD].numpy()
    assert sent.dtype == np.float16
    assert sent.any()
    kept = patch(store, 16)
    np.testing.assert_array_equal(kept, sent.astype(np.float32))
    going = work(asked(make_task, store, flat, 2))
    theta = basis(first.shared, first.config.pair, 16)
    np.testing.assert_array_equal(next(going).adapter.flat, theta.patched(flat, kept))
    assert not patch(store, 17).any()  # of a run with other settings


@pytest.mark.parametrize("order", [{"patch": -1}, {"patch": 10**7}, {keys.LABELS: "own"}])
def test_an_order_that_no_server_may_give_is_refused(order, make_task):
    with pytest.raises((ValueError, PermissionError)):
        alone(work(asked(make_task, Store(RecordDict()), **order)))
