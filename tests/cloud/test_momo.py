"""The cloud learns from its labels and from the models of devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdc_flower.cloud.momo import Momo, mixed
from cdc_flower.cloud.source import replay_pool
from cdc_flower.data.world import load_world
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model


def test_the_loss_is_cross_entropy_and_the_divergence_from_a_devices_model_on_the_answers():
    torch.manual_seed(0)
    logits, theirs = torch.randn(2, 3, 5), torch.randn(2, 3, 5).log_softmax(-1)
    answers = torch.tensor([[1, 4, -100], [0, -100, -100]])
    ce, kl = [], []
    for row, step in ((0, 0), (0, 1), (1, 0)):
        p, q = logits[row, step].softmax(-1), theirs[row, step].exp()
        ce.append(-float(p[answers[row, step]].log()))
        kl.append(float((p * (p / q).log()).sum()))
    assert float(mixed(logits, theirs, answers, 0.3)) == pytest.approx(np.mean(ce) + 0.3 * np.mean(kl))
    assert float(mixed(logits, logits.log_softmax(-1), answers, 9.0)) == pytest.approx(np.mean(ce))


def test_it_moves_towards_models_that_answer_otherwise_and_stands_still_without_any(config, shared):
    model = twin_model(shared, config.pair)
    pool, base = replay_pool(config, shared, load_world(config, shared))[:4], adapters.read(model)
    other = base + np.random.default_rng(0).normal(0, 0.2, base.shape).astype(np.float32)
    learners = [Momo(shared, model, pool, 2, 4, 1e-3, 0, beta=beta) for beta in (0.0, 5.0)]
    alone, drawn, again = (learner.learn(1, base, [other]) for learner in (*learners, learners[1]))
    np.testing.assert_array_equal(drawn, again)
    assert not np.array_equal(alone, drawn)
    assert learners[0].learn(1, base, []) is base
