"""Steps on A teach A, are the same twice, and none leave the weights alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdc_flower.cloud.rehearsal import Rehearsal
from cdc_flower.cloud.source import replay_pool
from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model


@pytest.fixture
def rehearsal(shared, settings):
    config = parse(settings)
    pool = replay_pool(config, shared, load_world(config, shared))
    assert pool
    model = adapters.train_merged(twin_model(shared, config.pair))
    return Rehearsal(shared, model, pool, steps=12, batch=8, lr=1e-2, seed=0)


def test_the_loss_of_a_falls_and_the_model_ends_ready_to_answer(rehearsal):
    start = adapters.read(rehearsal.model)
    before = rehearsal._loss(rehearsal.items).item()
    after = rehearsal.after(1, start)
    np.testing.assert_array_equal(adapters.read(rehearsal.model), after)
    assert rehearsal._loss(rehearsal.items).item() < 0.8 * before
    assert not rehearsal.model.training
    assert after.dtype == np.float32


def test_steps_depend_on_the_round_and_on_nothing_that_was_before(rehearsal):
    start = adapters.read(rehearsal.model)
    short = replace(rehearsal, steps=2)
    first, other = short.after(1, start), short.after(2, start)
    np.testing.assert_array_equal(short.after(1, start), first)
    assert not np.array_equal(first, other)


def test_without_steps_or_samples_the_weights_stay(rehearsal):
    start = adapters.read(rehearsal.model) + 1
    for none in (replace(rehearsal, steps=0), replace(rehearsal, items=[])):
        assert none.after(1, start) is start
