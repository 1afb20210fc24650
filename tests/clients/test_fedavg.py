"""Training on the device: on what it has met, towards what it may know, and near the global weights when told
so.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from cdc_flower.config import ConfigError, flat, parse
from cdc_flower.models import adapters, vlm
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.frame import FrameError
from clients.fedavg import MOST, fit, memory, own_answers, trainee, true_answers, work
from clients.inference import alone, answer

ORDER = {
    "epochs": 1,
    "batch": 8,
    "lr": 1e-2,
    "memory": 64,
    "confidence": 0.0,
    keys.LABELS: "true",
    keys.FULL: False,
}


@pytest.fixture
def task_of(make_task):
    """`task_of(device=0, round=1, settings={...}, **order)`."""

    def make(device=0, round=1, settings=None, **order):
        said = {name.replace("_", "-"): value for name, value in order.items()}
        return make_task(device, round, order={**ORDER, **said}, **(settings or {}))

    return make


def taught(task, model):
    """Tokens, questions, labels and grids of this round."""
    labels = true_answers(task, model, task.items)[1]
    return task.tokens(task.items), task.questions(task.items), labels, task.grids(task.items)


def moved(task) -> tuple[float, float]:
    """How far the adapter goes in `fit`, and the loss."""
    model = trainee(task.shared, task.config.pair, False)
    start = adapters.read(model)
    loss, _ = fit(task, model, *taught(task, model))
    distance = float(np.linalg.norm(adapters.read(model) - start))
    adapters.write(model, start)
    return distance, loss


def test_memory_is_the_last_items_of_earlier_rounds_and_all_of_this_one(task_of):
    stream = [task_of().source.items(round) for round in (1, 2, 3)]
    assert memory(task_of(round=1)).tolist() == stream[0].tolist()
    assert memory(task_of(round=3, memory=4)).tolist() == [*np.concatenate(stream[:2])[-4:], *stream[2]]
    assert memory(task_of(round=3, memory=0)).tolist() == stream[2].tolist()


def test_training_lowers_the_loss_and_is_the_same_twice(task_of):
    many, one = task_of(epochs=12), task_of(epochs=1)
    assert moved(many)[1] < 0.7 * moved(one)[1]
    assert moved(one) == moved(one)


def test_the_proximal_term_keeps_the_weights_near(task_of):
    assert moved(task_of(epochs=8, proximal_mu=10.0))[0] < 0.8 * moved(task_of(epochs=8))[0]


def test_the_first_step_is_that_of_adamw_on_the_mean_answer_loss(task_of):
    """Against ten plain lines."""
    task = task_of(batch=64)
    model = trainee(task.shared, task.config.pair, False)
    start = adapters.read(model)
    work = taught(task, model)
    fit(task, model, *work)
    got = adapters.read(model)
    adapters.write(model, start)
    inputs = vlm.collate(task.shared.text, *work[:3])
    logp = vlm.forward(model, inputs).logits.log_softmax(-1)
    wanted = inputs.answer_ids != -100
    loss = -logp.gather(-1, inputs.answer_ids.clamp_min(0)[..., None])[..., 0][wanted].mean()
    grads = torch.autograd.grad(loss, adapters.trainable(model))
    down = torch.cat([g.flatten() for g in grads]).numpy()
    step = np.where(np.abs(down) > 1e-4, 1e-2 * np.sign(down), np.nan)  # Adam's first step is lr * sign
    sure = np.isfinite(step)
    assert sure.sum() > 100
    np.testing.assert_allclose((start - got)[sure], step[sure], rtol=2e-3)


def test_own_answers_are_those_the_model_is_sure_of_and_need_no_label(task_of):
    task = task_of(labels="own")
    model = trainee(task.shared, task.config.pair, False)
    tokens, asked = task.tokens(task.items), task.questions(task.items)
    answers = answer(model, task.shared, task.source.longest, tokens, asked)
    middle = float(np.median(answers.confidence))
    chosen, targets, counts = own_answers(task_of(labels="own", confidence=middle), model, task.items)
    assert chosen.tolist() == np.flatnonzero(answers.confidence >= middle).tolist()
    assert targets == [answers.ids[i] for i in chosen]
    assert counts.passes == len(task.items)
    assert counts.decoded >= len(answers.ids)
    with pytest.raises(PermissionError, match="labels are for methods"):
        true_answers(task, model, task.items)


def test_a_device_that_is_sure_of_nothing_answers_with_the_weights_it_got(task_of):
    task = task_of(labels="own", confidence=1.0)
    sent = adapters.read(trainee(task.shared, task.config.pair, False)).astype(np.float16)
    task.sent[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(sent)})
    reply = alone(work(task))
    assert reply[keys.METRICS][keys.EXAMPLES] == 0
    assert Counts.of(reply[keys.METRICS]).trained == 0
    np.testing.assert_array_equal(reply[keys.ARRAYS][keys.PAYLOAD].numpy(), sent)


def test_trained_positions_count_twice_where_all_weights_have_gradients(task_of):
    found = []
    for full in (False, True):
        task = task_of(epochs=2, full=full, lr=0.0)
        model = trainee(task.shared, task.config.pair, full)
        found.append(fit(task, model, *taught(task, model))[1])
    assert found[0].passes == found[1].passes == 2 * 6
    assert (found[0].trained, found[1].trained) == (found[0].positions, 2 * found[0].positions)


def test_full_training_covers_projector_and_language_model_but_not_the_tower(task_of):
    task = task_of()
    names = adapters.layout(trainee(task.shared, task.config.pair, True)).names
    assert any("language_model" in n for n in names)
    assert any("projector" in n for n in names)
    assert not any("vision_tower" in n for n in names)


@pytest.mark.parametrize("key", list(MOST))
def test_an_order_beyond_what_the_settings_allow_is_refused_before_any_work(task_of, key):
    assert flat(parse({f"fedavg.{key}": MOST[key]}))[f"fedavg.{key}"] == MOST[key]
    with pytest.raises(ConfigError):
        parse({f"fedavg.{key}": 2 * MOST[key]})
    for bad in (2 * MOST[key], -1, float("nan"), "many"):
        with pytest.raises(ValueError, match=f"order: {key} = .*; allowed: 0..{MOST[key]}"):
            next(work(task_of(**{key: bad})))


def test_another_array_than_the_weights_is_refused(task_of):
    task = task_of()
    task.sent[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(np.zeros(3, np.float16))})
    with pytest.raises(FrameError, match="allowed: float16 of shape"):
        next(work(task))


def test_nothing_to_learn_is_no_step(task_of):
    task = task_of()
    model = trainee(task.shared, task.config.pair, False)
    start = adapters.read(model)
    assert fit(task, model, [], [], [], []) == (0.0, Counts())
    np.testing.assert_array_equal(adapters.read(model), start)
