"""The band of entropies in which samples go up, and how it follows the student."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import RecordDict

from cdc_flower.uplink import token_batch
from cdc_flower.wire.messages import frame_of
from clients import cema
from clients.inference import alone, answer
from clients.store import Store
from clients.task import resident


def test_the_upper_bound_falls_with_the_mean_of_all_entropies_so_far():
    store = Store(RecordDict())
    first = cema.band(store, np.array([1.0, 3.0]), 10.0)
    assert first == pytest.approx((0.2, 4.0))
    low, high = cema.band(store, np.array([0.0, 0.0]), 10.0)
    assert (low, high) == pytest.approx((0.2, 2.0))
    again = Store(store.state)  # as after a checkpoint
    assert cema.band(again, np.array([1.0] * 4), 10.0)[1] == pytest.approx(2.0)


def test_answers_without_any_entropy_are_no_division_by_zero():
    assert cema.band(Store(RecordDict()), np.zeros(3), 10.0) == pytest.approx((0.2, 4.0))


def test_samples_in_the_band_go_up_with_all_their_tokens(make_task, monkeypatch):
    task = make_task(method="cema", uplink_transform="none")
    model, items = resident(task.shared, task.models).model, task.items
    own = answer(model, task.shared, task.source.longest, task.tokens(items), task.questions(items))
    ranked, largest = np.sort(own.entropy), math.log(task.shared.vocab)
    monkeypatch.setattr(cema, "LOW", (ranked[0] + ranked[1]) / 2 / largest)
    monkeypatch.setattr(cema, "HIGH", (ranked[-2] + ranked[-1]) / 2 / largest)
    content = alone(cema.work(task))
    found = token_batch.decode(
        frame_of(content), task.shared.fits, task.shared.width, task.shared.vocab, 2**22
    ).samples
    within = np.flatnonzero((own.entropy > ranked[0]) & (own.entropy < ranked[-1]))
    assert [s.index for s in found] == within.tolist()
    assert content["metrics"]["uploaded"] == len(items) - 2
    assert all(len(s.positions) == task.shared.n_tokens for s in found)
