"""Device work of `fedkd`: a mentor that stays on the device and the shared mentee teach each other.

The mentee is the student with the shared adapter, the mentor the same student with all weights of its own
(the paper's mentor is a larger model, but a device here holds no model besides the student). On a batch with
true answers both are trained at once, by adaptive mutual distillation (arXiv 2108.13323): each on its cross
entropy, plus (KL(other || own) + MSE of the last hidden states) over the sum of both cross entropies, so that
they teach each other more where they are right. What the other says is a constant. The paper's term for
attention maps is left out, and its map between widths, which are equal here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor
from torch.nn import functional as F

from cdc_flower.cloud.losses import feature
from cdc_flower.downlink import low_rank
from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import full_model
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.messages import frame_of, payload
from clients.counts import answering, passes
from clients.fedavg import MOST, check, memory, trainee
from clients.inference import Ask, Work
from clients.local import untrained
from clients.store import Adapter
from clients.task import Task


@kept(2)
def mentor(shared: Shared, config: PairConfig) -> Adapter:
    """All weights of the student as it was shipped: every mentor begins with them."""
    return Adapter.of(adapters.read(full_model(shared, config)), 0)


def apart(own: Tensor, other: Tensor, wanted: Tensor) -> Tensor:
    """KL(other || own) in nats, a mean over all steps of answers; logits (B, A, V), `wanted` (B, A)."""
    p, q = other.log_softmax(-1), own.log_softmax(-1)
    there = wanted != -100
    return ((p.exp() * (p - q)).sum(-1) * there).sum() / there.sum().clamp_min(1)


@dataclass(frozen=True, eq=False)
class Taught:
    """Both after training.

    Attributes:
        mentee: (P,) float32.
        mentor: all weights.
        loss: the mentee's mean cross entropy in the last epoch.
        examples: that they learned from.
        counts: what it took.
    """

    mentee: np.ndarray
    mentor: np.ndarray
    loss: float
    examples: int
    counts: Counts


def mutual(task: Task, mentee: np.ndarray, own: np.ndarray) -> Taught:
    """Train both on what the device remembers.

    Args:
        mentee: (P,) float32, the adapter.
        own: all weights of the mentor.
    """
    order, config = task.order, task.config.pair
    models = [trainee(task.shared, config, full) for full in (False, True)]
    for model, flat in zip(models, (mentee, own), strict=True):
        adapters.write(model, flat)
        model.train()
    params = [adapters.trainable(model) for model in models]
    rates = float(order["lr"]), float(order["mentor-lr"])
    steps = [torch.optim.AdamW(own, lr=lr, weight_decay=0.0) for own, lr in zip(params, rates, strict=True)]
    items, rng, losses = memory(task), task.rng("local training"), list[float]()
    tokens, asked, labels = task.tokens(items), task.questions(items), task.labels(items)
    grids = task.grids(items)
    for _ in range(int(order["epochs"])):
        losses, drawn = [], rng.permutation(len(items))
        for at in range(0, len(items), int(order["batch"])):
            some = drawn[at : at + int(order["batch"])]
            seen, read, told, lie = ([of[i] for i in some] for of in (tokens, asked, labels, grids))
            inputs = vlm.collate(task.shared.text, seen, read, told, grids=lie).to(params[0][0].device)
            wanted = inputs.answer_ids
            assert wanted is not None
            out = [vlm.forward(model, inputs) for model in models]
            ce = [F.cross_entropy(o.logits.flatten(0, 1), wanted.flatten(), ignore_index=-100) for o in out]
            losses.append(ce[0].item())
            weight, total = 1 / (ce[0] + ce[1]).detach().clamp_min(1e-3), torch.zeros(())
            for i, other in ((0, out[1]), (1, out[0])):
                taught = apart(out[i].logits, other.logits.detach(), wanted)
                taught = taught + feature(out[i].hidden, other.hidden.detach(), out[i].mask)
                total = total + ce[i] + weight * taught
            for one in steps:
                one.zero_grad()
            total.backward()
            for one in steps:
                one.step()
    for model in models:
        model.eval()
    read = passes(task, tokens, asked, [len(ids) + 1 for ids in labels], grids) * int(order["epochs"])
    counts = read * 2 + Counts(trained=3 * read.positions)  # of the mentor all weights have gradients
    shared, own = (adapters.read(model) for model in models)
    return Taught(shared, own, float(np.mean(losses)) if losses else 0.0, len(items), counts)


def work(task: Task) -> Work:
    """One round on a device; the reply carries the mentee's change as a LOW_RANK frame."""
    check(task.order, {**MOST, "mentor-lr": 10**6, "energy": 1})
    model, base = trainee(task.shared, task.config.pair, False), untrained(task.shared, task.config.pair)
    shapes = adapters.layout(model).shapes
    received = Adapter.of(base.flat + low_rank.decode(frame_of(task.sent), shapes), 0)
    tokens, asked, grids = task.tokens(task.items), task.questions(task.items), task.grids(task.items)
    answers = yield Ask(task, model, received, tokens, asked, grids=grids)
    task.store.say(task.round, answers.texts)
    own = task.store.held(mentor(task.shared, task.config.pair)).flat
    now = mutual(task, received.flat, own)
    task.store.hold(Adapter.of(now.mentor, task.round))
    frame = low_rank.encode(now.mentee - received.flat, shapes, float(task.order["energy"]))
    counts = answering(task, tokens, asked, answers.ids, grids) + now.counts
    metrics = {keys.EXAMPLES: now.examples, "loss": now.loss, **counts.metrics()}
    return RecordDict({keys.ARRAYS: payload(frame), keys.METRICS: MetricRecord(metrics)})
