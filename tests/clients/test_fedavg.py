"""Training on the device: on what it has met, towards what it may know, and near the global weights when told
so.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MessageType, RecordDict

from cdc_flower.fleet.engines.local_grid import identify
from cdc_flower.models import adapters, vlm
from cdc_flower.wire import keys
from clients.fedavg import fit, memory, own_answers, trainee, true_answers, work
from clients.inference import alone, answer
from clients.task import pictures, question_length, questions


def moved(task, mu: float) -> tuple[float, float]:
    """How far the adapter goes in `fit`, and the loss."""
    model = trainee(task.shared, task.config.pair, False)
    start = adapters.read(model)
    rows = task.rows
    _, targets, *_ = true_answers(task, model, rows)
    loss, _ = fit(task, model, pictures(task, rows), questions(task, rows), targets, lr=1e-2, mu=mu)
    distance = float(np.linalg.norm(adapters.read(model) - start))
    adapters.write(model, start)
    return distance, loss


def test_memory_is_the_last_rows_of_earlier_rounds_and_all_of_this_one(make_task):
    stream = make_task().world.streams[0]
    assert memory(make_task(round=1)).tolist() == stream[0].tolist()
    kept = memory(make_task(round=3, memory=4))
    assert kept.tolist() == [*np.concatenate(stream[:2])[-4:], *stream[2]]
    assert memory(make_task(round=3, memory=0)).tolist() == stream[2].tolist()


def test_training_lowers_the_loss_and_is_the_same_twice(make_task):
    many, one = make_task(fedavg_epochs=12), make_task(fedavg_epochs=1)
    assert moved(many, 0.0)[1] < 0.7 * moved(one, 0.0)[1]
    assert moved(one, 0.0) == moved(one, 0.0)


def test_the_proximal_term_keeps_the_weights_near(make_task):
    task = make_task(fedavg_epochs=8)
    assert moved(task, 10.0)[0] < 0.8 * moved(task, 0.0)[0]


def test_the_first_step_is_that_of_adamw_on_the_mean_answer_loss(make_task):
    """Against ten plain lines."""
    task = make_task(fedavg_epochs=1, fedavg_batch=64)
    model = trainee(task.shared, task.config.pair, False)
    start = adapters.read(model)
    work = pictures(task, task.rows), questions(task, task.rows), true_answers(task, model, task.rows)[1]
    fit(task, model, *work, lr=1e-2, mu=0.0)
    got = adapters.read(model)
    adapters.write(model, start)
    inputs = vlm.collate(task.shared.text, *work)
    logp = vlm.forward(model, task.shared.text, inputs).logits.log_softmax(-1)
    wanted = inputs.answer_ids != -100
    loss = -logp.gather(-1, inputs.answer_ids.clamp_min(0)[..., None])[..., 0][wanted].mean()
    grads = torch.autograd.grad(loss, adapters.trainable(model))
    flat = torch.cat([g.flatten() for g in grads]).numpy()
    step = np.where(np.abs(flat) > 1e-4, 1e-2 * np.sign(flat), np.nan)  # Adam's first step is lr * sign
    sure = np.isfinite(step)
    assert sure.sum() > 100
    np.testing.assert_allclose((start - got)[sure], step[sure], rtol=2e-3)


def test_own_answers_are_those_the_model_is_sure_of(make_task):
    task = make_task()
    model = trainee(task.shared, task.config.pair, False)
    length = question_length(task.shared, task.world)
    answers = answer(model, task.shared, length, pictures(task, task.rows), questions(task, task.rows))
    middle = float(np.median(answers.confidence))
    chosen, targets, spent, generated = own_answers(make_task(fedavg_confidence=middle), model, task.rows)
    assert chosen.tolist() == np.flatnonzero(answers.confidence >= middle).tolist()
    assert targets == [answers.ids[i] for i in chosen]
    assert spent > 0
    assert generated >= len(answers.ids)


def test_a_device_that_is_sure_of_nothing_answers_with_the_weights_it_got(make_task):
    task = make_task(order={keys.FULL: False, keys.LABELS: "own"}, fedavg_confidence=1.0)
    sent = adapters.read(trainee(task.shared, task.config.pair, False)).astype(np.float16)
    content = RecordDict({keys.ARRAYS: ArrayRecord({keys.PAYLOAD: Array(sent)})})
    identify()
    message = Message(content, 0, MessageType.TRAIN)
    reply = alone(work(task, message, Context(1, 1, {}, RecordDict(), {})))
    assert reply[keys.METRICS][keys.EXAMPLES] == 0
    np.testing.assert_array_equal(reply[keys.ARRAYS][keys.PAYLOAD].numpy(), sent)


def test_full_training_covers_projector_and_language_model_but_not_the_tower(make_task):
    task = make_task()
    names = adapters.layout(trainee(task.shared, task.config.pair, True)).names
    assert any("language_model" in n for n in names)
    assert any("projector" in n for n in names)
    assert not any("vision_tower" in n for n in names)


def test_nothing_to_learn_is_no_step(make_task):
    task = make_task()
    model = trainee(task.shared, task.config.pair, False)
    start = adapters.read(model)
    empty = np.zeros((0, task.shared.n_tokens, task.shared.width), np.float16)
    assert fit(task, model, empty, [], [], lr=1.0, mu=0.0) == (0.0, 0)
    np.testing.assert_array_equal(adapters.read(model), start)


@pytest.mark.parametrize("spec", ["2:1", " 2:1, 4:0", ""])
def test_fault_injection_reads_round_and_device(spec):
    from clients.client_app import failures

    assert failures(spec) == ({(2, 1)} if spec == "2:1" else {(2, 1), (4, 0)} if spec else set())
