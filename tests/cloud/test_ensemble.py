"""The one comes nearer to the mean of the students' logits, whatever the labels of A are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdc_flower.cloud.ensemble import Ensemble, apart
from cdc_flower.cloud.source import replay_pool
from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from cdc_flower.models import adapters, vlm
from cdc_flower.models.student import twin_model


@pytest.fixture
def ensemble(shared, settings):
    config = parse(settings)
    pool = [item.sample for item in replay_pool(config, shared, load_world(config, shared))][:6]
    models = [twin_model(shared, config.pair) for _ in range(2)]
    return Ensemble(shared, models[0], adapters.train_merged(models[1]), pool, 8, 6, 3e-3, seed=0)


@pytest.fixture
def students(ensemble):
    """Two students on either side of version 0, and that."""
    start, rng = adapters.read(ensemble.one), np.random.default_rng(0)
    return start, [start + 0.1 * rng.standard_normal(len(start)).astype(np.float32) for _ in range(2)]


def test_kl_is_a_mean_over_steps_then_over_samples():
    wanted, logits = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    logits[0, 0, 0], logits[1, 1, 0] = 5.0, 7.0
    p, q = torch.full((3,), 1 / 3), logits[0, 0].softmax(-1)
    first = (p * (p / q).log()).sum()
    ids = torch.tensor([[4, 4], [4, -100]])
    assert apart(wanted, logits, ids).item() == pytest.approx(first.item() / 2 / 2, rel=1e-5)


def test_what_is_wanted_is_the_mean_of_the_students_logits(ensemble, students):
    start, flats = students
    inputs = ensemble._answered(ensemble.samples, start)
    each = []
    with torch.no_grad():
        for flat in flats:
            adapters.write(ensemble.model, flat)
            each.append(vlm.forward(ensemble.model, inputs).logits)
    torch.testing.assert_close(ensemble._mean(inputs, flats), torch.stack(each).mean(0))


def test_distillation_brings_the_one_nearer_to_the_ensemble(ensemble, students):
    start, flats = students
    inputs = ensemble._answered(ensemble.samples, start)

    def distance(flat):
        adapters.write(ensemble.one, flat)
        with torch.no_grad():
            return apart(
                ensemble._mean(inputs, flats), vlm.forward(ensemble.one, inputs).logits, inputs.answer_ids
            )

    after = ensemble.distilled(1, start, flats)
    assert distance(after) < 0.7 * distance(start)
    assert not ensemble.one.training
    np.testing.assert_array_equal(ensemble.distilled(1, start, flats), after)
    assert not np.array_equal(ensemble.distilled(2, start, flats), after)


def test_without_samples_the_weights_stay(ensemble, students):
    start, flats = students
    assert replace(ensemble, samples=[]).distilled(1, start, flats) is start
