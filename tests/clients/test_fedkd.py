"""Mentor and mentee learn from labels and from each other; the mentor stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from torch.nn import functional as F

from cdc_flower.downlink import low_rank
from cdc_flower.models import adapters, vlm
from cdc_flower.wire import keys
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import frame_of
from clients.fedavg import trainee
from clients.fedkd import apart, mentor, mutual, work
from clients.inference import alone
from clients.local import untrained
from clients.store import Store

ORDER = {
    "epochs": 1,
    "batch": 8,
    "lr": 1e-2,
    "mentor-lr": 1e-3,
    "memory": 0,
    "energy": 0.95,
    keys.LABELS: "true",
    keys.FULL: False,
}


@pytest.fixture
def task_of(make_task):
    """`task_of(round=1, store=..., frame=..., epochs=3)`; a frame that is not given says: no change."""

    def make(round=1, store=None, frame=None, **order):
        task = make_task(0, round, order={**ORDER, **order}, store=store, frame=frame or b"-")
        if frame is None:
            shapes = adapters.layout(trainee(task.shared, task.config.pair, False)).shapes
            begin = untrained(task.shared, task.config.pair).flat
            nothing = low_rank.encode(np.zeros_like(begin), shapes, 0.95)
            task = make_task(0, round, order={**ORDER, **order}, store=store, frame=nothing)
        return task

    return make


def both(task):
    return untrained(task.shared, task.config.pair).flat, mentor(task.shared, task.config.pair).flat


def test_both_learn(task_of):
    many, one = (mutual(task, *both(task)) for task in (task_of(epochs=10), task_of()))
    assert many.loss < 0.8 * one.loss
    assert one.examples == 6
    assert one.counts.trained * 2 == one.counts.positions * 3
    for trained, start in zip((one.mentee, one.mentor), both(task_of()), strict=True):
        assert trained.shape == start.shape
        assert 0 < np.abs(trained - start).max() < 1.1e-2


def test_the_mentee_goes_down_its_own_loss_and_what_the_mentor_says(task_of):
    """Against plain lines, with a mentor that says something else."""
    task = task_of()
    mentee, own = both(task)
    own = own + 0.02 * np.random.default_rng(0).standard_normal(len(own)).astype(np.float32)
    got = mutual(task, mentee, own).mentee
    items = task.items
    inputs = vlm.collate(task.shared.text, task.tokens(items), task.questions(items), task.labels(items))
    models = [trainee(task.shared, task.config.pair, full) for full in (False, True)]
    for model, flat in zip(models, (mentee, own), strict=True):
        adapters.write(model, flat)
    student, teacher = (vlm.forward(model, inputs) for model in models)
    there = inputs.answer_ids != -100
    ce = [F.cross_entropy(out.logits[there], inputs.answer_ids[there]) for out in (student, teacher)]
    p, q = (out.logits[there].log_softmax(-1) for out in (teacher, student))
    kl = F.kl_div(q, p.detach(), reduction="batchmean", log_target=True)
    assert apart(student.logits, teacher.logits, inputs.answer_ids).item() == pytest.approx(
        kl.item(), rel=1e-4
    )
    hidden = (student.hidden - teacher.hidden.detach())[student.mask].square().mean()
    loss = ce[0] + (kl + hidden) / (ce[0] + ce[1]).detach()
    down = torch.cat([g.flatten() for g in torch.autograd.grad(loss, adapters.trainable(models[0]))]).numpy()
    sure = np.abs(down) > 1e-3  # AdamW's first step is lr times the sign
    assert sure.sum() > 100
    np.testing.assert_allclose((mentee - got)[sure], 1e-2 * np.sign(down[sure]), rtol=1e-2)


def test_the_change_goes_up_and_the_mentor_is_kept(task_of):
    store = Store(RecordDict())
    first = task_of(store=store)
    reply = alone(work(first))
    model = trainee(first.shared, first.config.pair, False)
    change = low_rank.decode(frame_of(reply), adapters.layout(model).shapes)
    assert 0 < np.abs(change).max() < 2e-2
    begin = mentor(first.shared, first.config.pair)
    kept = store.held(begin)
    assert (kept.version, kept.flat.shape) == (1, begin.flat.shape)
    assert not np.array_equal(kept.flat, begin.flat)
    alone(work(task_of(2, store)))
    assert store.held(begin).version == 2


def test_a_frame_that_is_none_and_an_order_beyond_all_settings_are_refused(task_of):
    with pytest.raises(FrameError):
        next(work(task_of(frame=b"noise")))
    with pytest.raises(ValueError, match="order: energy = 1.5; allowed: 0..1"):
        next(work(task_of(energy=1.5)))
