"""TENT makes a device surer of its own answers, and touches nothing but norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from cdc_flower.models import adapters, vlm
from clients.fedavg import trainee
from clients.inference import alone, answer
from clients.local import untrained
from clients.online import Batch
from clients.store import Store
from clients.tent import Tent, work


@pytest.fixture
def task_of(make_task):
    """`task_of(round=1, store=Store(...), batch=6, lr=0.01)`; no order says that labels may be read."""

    def make(round=1, store=None, **order):
        return make_task(0, round, order={"batch": 6, "lr": 0.01, **order}, store=store)

    return make


def answered(task) -> tuple[Batch, vlm.Answers]:
    """This round's samples with the answers of the shipped student."""
    base = untrained(task.shared, task.config.pair)
    model = trainee(task.shared, task.config.pair, False)
    adapters.write(model, base.flat)
    tokens, asked = task.tokens(task.items), task.questions(task.items)
    said = answer(model, task.shared, task.source.longest, tokens, asked)
    return Batch(task, tokens, asked, said.ids, task.grids(task.items)), said


def test_the_loss_is_the_mean_entropy_of_the_answers_and_falls(task_of):
    task = task_of(lr=0.003)
    batch, said = answered(task)
    tent = Tent(task)
    losses = [tent.learn(batch)[0] for _ in range(5)]
    assert losses[0] == pytest.approx(said.entropy.mean(), rel=1e-4)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_only_norms_move_each_by_one_step_of_adam_down_the_entropy(task_of):
    task = task_of()
    batch, _ = answered(task)
    tent, base = Tent(task), untrained(task.shared, task.config.pair).flat
    _, computed = tent.learn(batch)
    own = adapters.layout(tent.model)
    norm = np.concatenate([np.full(n, "norm" in name) for name, n in zip(own.names, own.sizes, strict=True)])
    assert 0 < norm.sum() < len(norm)
    np.testing.assert_array_equal(tent.flat[~norm], base[~norm])
    adapters.write(tent.model, base)
    inputs = batch.inputs()
    probability = vlm.forward(tent.model, inputs).logits.softmax(-1)
    entropy, there = torch.special.entr(probability).sum(-1), inputs.answer_ids != -100
    loss = torch.stack([e[t].mean() for e, t in zip(entropy, there, strict=True)]).mean()
    found = torch.autograd.grad(loss, adapters.trainable(tent.model))
    down = torch.cat([g.flatten() for g in found]).numpy()
    sure = norm & (np.abs(down) > 1e-5)  # Adam's first step is lr times the sign
    assert sure.sum() > 20
    np.testing.assert_allclose((base - tent.flat)[sure], 0.01 * np.sign(down[sure]), rtol=1e-2)
    assert computed.trained == computed.positions == batch.read().positions


def test_moments_and_adapter_are_kept_from_round_to_round(task_of):
    store = Store(RecordDict())
    for round in (1, 2):
        alone(work(task_of(round, store, batch=3)))
    task = task_of(3, store)
    tent, begin = Tent(task), untrained(task.shared, task.config.pair).flat
    assert tent.moments[0] == 4  # two rounds of two batches
    assert len(tent.moments) == 1 + 2 * tent.trained.sum()
    assert not np.array_equal(tent.flat, begin)


@pytest.mark.parametrize("bad", [{"batch": 2**17}, {"lr": float("nan")}])
def test_an_order_beyond_what_the_settings_allow_is_refused_before_any_work(task_of, bad):
    with pytest.raises(ValueError, match="order: .*; allowed"):
        work(task_of(**bad))
