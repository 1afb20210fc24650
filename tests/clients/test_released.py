"""What the released rules send: unsure samples alone, with a quarter of their tokens as zeros."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.uplink import token_batch
from cdc_flower.wire import keys
from cdc_flower.wire.messages import frame_of
from clients import released
from clients.inference import alone, answer
from clients.task import resident


def batch(task, content):
    shared = task.shared
    return token_batch.decode(frame_of(content), shared.fits, shared.width, shared.vocab, 2**22)


@pytest.fixture
def task(make_task):
    return lambda sure: make_task(method="released", order={keys.SURE: sure})


def test_the_tokens_of_the_largest_norm_become_zero_and_one_more_than_a_quarter():
    """The variance under dropout is the squared norm (docs/method.md)."""
    norms = np.arange(1, 33, dtype=np.float32)
    directions = np.random.default_rng(0).choice([-1.0, 1.0], (32, 400))
    kept = released.masked((norms[:, None] * directions).astype(np.float16), np.random.default_rng(1))
    assert kept.any(1).tolist() == [True] * 23 + [False] * 9


def test_unsure_samples_go_up_with_all_their_tokens_in_16_bits(task):
    task = task(0.5)
    model, items = resident(task.shared, task.models).model, task.items
    own = answer(model, task.shared, task.source.longest, task.tokens(items), task.questions(items))
    sure = np.median(np.exp(own.sharp))  # random weights are unsure of everything
    task.sent.config_records[keys.CONFIG][keys.SURE] = float(sure)
    content = alone(released.work(task))
    found = batch(task, content).samples
    assert [s.index for s in found] == np.flatnonzero(own.sharp < np.log(sure)).tolist()
    assert 0 < len(found) == content["metrics"]["uploaded"] < len(items)
    for sample in found:
        true = task.source.tokens(items[sample.index]).astype(np.float32)
        there = sample.tokens.any(1)
        assert len(there) == len(true)
        assert there.sum() == len(true) * 3 // 4 - 1
        np.testing.assert_array_equal(sample.tokens[there], true[there])


def test_with_confidence_in_everything_nothing_goes_up(task):
    content = alone(released.work(task(1e-300)))
    assert "arrays" not in content
    assert content["metrics"]["uploaded"] == 0
