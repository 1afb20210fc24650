"""CoTTA: who answers, who teaches, when views are averaged, what goes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from cdc_flower.models import adapters, vlm
from clients.cotta import RESTORED, Cotta, work
from clients.inference import alone
from clients.store import Store
from tests.clients.test_tent import answered

ORDER = {"batch": 6, "lr": 0.01, "ema": 0.9, "threshold": 0.0, "views": 3}


@pytest.fixture
def task_of(make_task):
    """`task_of(round=1, store=Store(...), threshold=0.5, ...)`."""

    def make(round=1, store=None, **order):
        return make_task(0, round, order={**ORDER, **order}, store=store)

    return make


def test_one_step_of_the_student_is_followed_by_the_mean_and_few_weights_go_back(task_of):
    batch, _ = answered(task_of())
    found = {}
    for ema in (0.0, 0.9, 1.0):
        found[ema] = Cotta(task_of(ema=ema))
        found[ema].learn(batch)
    shipped, stepped = found[1.0].shipped, found[0.0].mean
    np.testing.assert_array_equal(found[1.0].mean, shipped)
    np.testing.assert_allclose(found[0.9].mean, shipped + 0.1 * (stepped - shipped), atol=1e-6)
    moved = stepped != shipped
    back = moved & (found[0.0].student == shipped)
    assert 0.5 * RESTORED < back.sum() / moved.sum() < 2 * RESTORED
    np.testing.assert_array_equal(found[0.0].student[~back], stepped[~back])
    assert found[0.9].worn().flat is found[0.9].mean


def test_the_first_step_goes_down_the_cross_entropy_with_the_mean(task_of):
    """Mean and student are equal at first, so that is the entropy and its gradient is not that of TENT: the
    mean's prediction is a constant, whose cross entropy with itself is at its least.
    """
    task = task_of()
    batch, said = answered(task)
    cotta = Cotta(task)
    loss, _ = cotta.learn(batch)
    assert loss == pytest.approx(said.entropy.mean(), rel=1e-4)


def test_predictions_are_averaged_over_views_of_what_the_shipped_student_is_unsure_of(task_of):
    batch, _ = answered(task_of())
    read = batch.read()
    adapters.write((plain := Cotta(task_of())).model, plain.shipped)
    with torch.no_grad():
        whole = vlm.forward(plain.model, batch.inputs()).logits.softmax(-1)
    target, counts = plain.target(batch)
    torch.testing.assert_close(target, whole)
    assert counts == read * 2
    unsure = Cotta(task_of(threshold=1.0))
    target, counts = unsure.target(batch)
    assert counts.passes == read.passes * (2 + 3)
    assert 2 * read.vision < counts.vision < (2 + 0.9 * 3) * read.vision
    views, again = [], Cotta(task_of(threshold=1.0))
    with torch.no_grad():
        for _ in range(3):
            kept = [again.some(len(tokens)) for tokens in batch.tokens]
            views.append(vlm.forward(again.model, batch.seen(range(6), kept).inputs()).logits.softmax(-1))
    torch.testing.assert_close(target, torch.stack(views).mean(0))
    assert not torch.allclose(target, whole, atol=1e-5)


def test_what_is_kept_goes_on(task_of):
    store = Store(RecordDict())
    for round in (1, 2):
        alone(work(task_of(round, store, batch=3, threshold=1.0)))
    cotta = Cotta(task_of(3, store))
    assert cotta.moments[0] == 4
    size = len(cotta.shipped)
    assert (len(cotta.mean), len(cotta.student), len(cotta.moments)) == (size, size, 1 + 2 * size)
    assert 0 < np.abs(cotta.mean - cotta.shipped).max() < np.abs(cotta.student - cotta.shipped).max()


@pytest.mark.parametrize("bad", [{"views": 1001}, {"ema": 1.5}, {"threshold": -1}, {"batch": 2**17}])
def test_an_order_beyond_what_the_settings_allow_is_refused_before_any_work(task_of, bad):
    with pytest.raises(ValueError, match="order: .*; allowed"):
        work(task_of(**bad))
