"""Device work of `cotta`: a student learns from the running mean of itself, no label (arXiv 2203.13591).

The mean, the paper's teacher (no model of the cloud), is what answers. After each batch:

1. the mean says what it predicts at every step of its answers. Where the student as it was shipped is unsure
   (the largest probability, averaged over the steps, is below `threshold`), its prediction is averaged over
   `views` passes that each drop a random quarter of the vision tokens: what stands here for the augmentations
   of pictures, of which a device has the tokens;
2. the student makes one step of Adam down the cross entropy with these predictions;
3. the mean follows: `ema` mean + (1 - `ema`) student;
4. of the student's weights each goes back to the shipped one with probability `RESTORED`.

What is trained is the whole adapter, where the paper trains all weights. An answer is decoded from the mean
alone; the paper's answers are averaged over augmentations, which would take `views` decodings.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cdc_flower.models import adapters, vlm
from cdc_flower.wire.counts import Counts
from clients.fedavg import check, trainee
from clients.inference import Work
from clients.local import untrained
from clients.online import MOST, Batch, adam, online, steps
from clients.store import Adapter
from clients.task import Task

RESTORED = 0.01  # of the student's weights, after a step
DROPPED = 0.25  # of the vision tokens, in a view


class Cotta:
    """What a device learns with in a round; it keeps the mean (P,), the student (P,), then the moments."""

    def __init__(self, task: Task) -> None:
        self.task, self.model = task, trainee(task.shared, task.config.pair, False)
        self.shipped = untrained(task.shared, task.config.pair).flat
        size, kept = len(self.shipped), task.store.held(Adapter.of(self.shipped, 0)).flat
        self.mean, self.student, self.moments = kept[:size], kept[size : 2 * size], kept[2 * size :]
        if not len(self.student):
            self.student = self.shipped
        self.rng = task.rng("views and restored weights")

    def worn(self) -> Adapter:
        """The mean."""
        return Adapter.of(self.mean, 0)

    def learn(self, batch: Batch) -> tuple[float, Counts]:
        """The four steps."""
        order, read = self.task.order, batch.read()
        target, computed = self.target(batch)
        adapters.write(self.model, self.student)
        inputs = batch.inputs()
        logp = vlm.forward(self.model, inputs).logits.log_softmax(-1)
        loss = -((target * logp).sum(-1) * steps(logp, inputs.answer_ids)).sum()
        found = torch.autograd.grad(loss, adapters.trainable(self.model))
        gradient = torch.cat([g.flatten() for g in found])
        student, self.moments = adam(self.student, gradient, self.moments, float(order["lr"]))
        ema = np.float32(order["ema"])
        self.mean = ema * self.mean + (1 - ema) * student
        back = self.rng.random(len(student), np.float32) < RESTORED
        self.student = np.where(back, self.shipped, student)
        return float(loss.detach()), computed + read + Counts(trained=read.positions)

    @torch.no_grad()
    def target(self, batch: Batch) -> tuple[Tensor, Counts]:
        """Predictions (B, A, V) of the mean, and what they took."""
        inputs, read = batch.inputs(), batch.read()
        adapters.write(self.model, self.shipped)
        sure = vlm.forward(self.model, inputs).logits.softmax(-1).amax(-1)
        sure = len(sure) * (sure * steps(sure, inputs.answer_ids)).sum(1)
        adapters.write(self.model, self.mean)
        target = vlm.forward(self.model, inputs).logits.softmax(-1)
        counts, views = read * 2, int(self.task.order["views"])
        rows = torch.nonzero(sure < float(self.task.order["threshold"])).flatten().tolist()
        if not rows:
            return target, counts
        mean = torch.zeros_like(target[rows])
        for _ in range(views):
            view = batch.seen(rows, [self.some(len(batch.tokens[i])) for i in rows])
            found = vlm.forward(self.model, view.inputs()).logits.softmax(-1)
            mean[:, : found.shape[1]] += found / views  # what is beyond is in no answer of these rows
            counts += view.read()
        target[rows] = mean
        return target, counts

    def some(self, tokens: int) -> np.ndarray:
        """Places of the tokens of a view, at least one."""
        there = np.flatnonzero(self.rng.random(tokens) >= DROPPED)
        return there if len(there) else np.zeros(1, np.int64)

    def kept(self) -> np.ndarray:
        """See the class."""
        return np.concatenate([self.mean, self.student, self.moments])


def work(task: Task) -> Work:
    """One round of `cotta` on a device."""
    check(task.order, {**MOST, "views": 1000, "threshold": 1, "ema": 1})
    return online(task, Cotta(task))
