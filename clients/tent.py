"""Device work of `tent`: after each batch a step that makes the device's answers surer (arXiv 2006.10726).

What is minimised is the entropy of the predictive distributions, what is trained are scales and shifts of the
norms that belong to the adapter. Here an answer is a text of several steps, whose entropies are averaged, at
the answer that the device gave; and norms of language models have no statistics of a batch, which the paper
estimates anew, too. No label is read. The mean entropy over a batch's samples is minimised by Adam, whose
moments the device keeps from round to round: the stream is never episodic.
"""

from __future__ import annotations

import numpy as np
import torch

from cdc_flower.models import adapters, vlm
from cdc_flower.wire.counts import Counts
from clients.fedavg import check, trainee
from clients.inference import Work
from clients.local import untrained
from clients.online import MOST, Batch, adam, online, steps
from clients.store import Adapter
from clients.task import Task


class Tent:
    """What a device learns with in a round; it keeps its adapter (P,), then the moments."""

    def __init__(self, task: Task) -> None:
        self.model, self.lr = trainee(task.shared, task.config.pair, False), float(task.order["lr"])
        base = untrained(task.shared, task.config.pair)
        kept, size = task.store.held(base).flat, len(base.flat)
        self.flat, self.moments = kept[:size], kept[size:]
        self.trained = adapters.norms(self.model)

    def worn(self) -> Adapter:
        """The adapter."""
        return Adapter.of(self.flat, 0)

    def learn(self, batch: Batch) -> tuple[float, Counts]:
        """One step down the mean entropy of the answers."""
        adapters.write(self.model, self.flat)  # another device may have worn it meanwhile
        inputs = batch.inputs()
        logp = vlm.forward(self.model, inputs).logits.log_softmax(-1)
        loss = -((logp.exp() * logp).sum(-1) * steps(logp, inputs.answer_ids)).sum()
        params = adapters.trainable(self.model)
        found = torch.autograd.grad(loss, params)
        gradient = torch.cat([g.flatten() for g in found]).cpu()[torch.from_numpy(self.trained)]
        values, self.moments = adam(self.flat[self.trained], gradient, self.moments, self.lr)
        self.flat = self.flat.copy()
        self.flat[self.trained] = values
        read = batch.read()
        return float(loss.detach()), read + Counts(trained=read.positions)

    def kept(self) -> np.ndarray:
        """See the class."""
        return np.concatenate([self.flat, self.moments])


def work(task: Task) -> Work:
    """One round of `tent` on a device."""
    check(task.order, MOST)
    return online(task, Tent(task))
