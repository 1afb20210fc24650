"""A device finds its mix once, trains those blocks alone, and sends what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict

from cdc_flower.wire import keys
from cdc_flower.wire.messages import frame_of
from clients.eclm import blocks, mix_of, work
from clients.inference import alone
from clients.local import untrained
from clients.store import Store

ORDER = {
    **{"epochs": 1, "batch": 8, "lr": 1e-2, "memory": 4, "share": 0.3},
    **{keys.LABELS: "true", keys.FULL: False},
}


def test_the_mix_stays_and_begins_with_what_the_cloud_merged(make_task):
    store = Store(RecordDict())
    first = make_task(order=ORDER, store=store)
    pair = first.shared, first.config.pair
    every, base = blocks(*pair), untrained(*pair)
    mix, values = every.decode(frame_of(alone(work(first))))
    assert mix == mix_of(store, every)
    assert 0 < len(values) <= 0.3 * len(base.flat)
    held = store.held(base).flat
    np.testing.assert_array_equal(held[every.places(mix)], values.astype(np.float32))
    others = np.setdiff1d(np.arange(len(held)), every.places(mix))
    np.testing.assert_array_equal(held[others], base.flat[others])

    merged = base.flat.copy()
    merged[every.places(mix)] += 1.0
    still = {**ORDER, "epochs": 0}  # what it begins with is what it ends with
    again = make_task(order=still, store=store, frame=every.encode(mix, merged))
    found, values = every.decode(frame_of(alone(work(again))))
    assert found == mix
    np.testing.assert_array_equal(values, merged[every.places(mix)].astype(np.float16))
    lost = make_task(
        order={**still, "share": 1.0}, store=Store(RecordDict()), frame=every.encode(mix, merged)
    )
    assert every.decode(frame_of(alone(work(lost))))[0] == mix


@pytest.mark.parametrize("order", [{"share": 1.5}, {"share": "all"}, {keys.LABELS: "own"}])
def test_an_order_that_no_server_may_give_is_refused(order, make_task):
    with pytest.raises((ValueError, PermissionError)):
        alone(work(make_task(order={**ORDER, **order})))
