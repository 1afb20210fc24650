"""A device learns from as many labels as the order says, and from no more."""

from __future__ import annotations

import pytest

from cdc_flower.wire import keys
from clients.finetune import work
from clients.inference import alone
from clients.portions import first

ORDER = {"epochs": 1, "batch": 4, "lr": 1e-2, "memory": 4, keys.LABELS: "true", keys.FULL: False}


def test_the_order_says_of_how_many_samples_of_a_kind_there_are_labels(make_task):
    task = make_task(order={**ORDER, "samples": 1})
    assert alone(work(task))[keys.METRICS][keys.EXAMPLES] == len(first(task, 1)) < len(task.items)


@pytest.mark.parametrize("samples", [-1, 10**6 + 1, None])
def test_an_order_of_too_many_samples_is_refused(samples, make_task):
    order = {**ORDER, **({} if samples is None else {"samples": samples})}
    with pytest.raises(ValueError, match=r"order: samples = .*; allowed: 0\.\.1000000"):
        alone(work(make_task(order=order)))
