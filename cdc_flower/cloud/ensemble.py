"""The cloud distils an ensemble of students into one on its own unlabelled data A (FedDF, arXiv 2006.07242).

At every step of an answer the students' logits are averaged, and the one is pulled towards that distribution
by KL(ensemble || one). The paper's students are classifiers; here an answer is a text, and its steps are
those of the answer that the one gave before the first step of a round, so that it learns on ground it walks
itself. Steps are Adam's from a fresh state each round, with the rate falling to 0 by a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cdc_flower.cloud.lessons import grids
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.draws import generator
from cdc_flower.models import adapters, vlm
from cdc_flower.models.placement import device_of
from cdc_flower.models.shared import Shared


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Distillation on A; no label of it is read.

    Attributes:
        model: wears each of the students in turn; its own weights are lost.
        one: learns; changed in place.
        samples: whole pictures with a question.
        steps: a round.
        batch: samples a step.
        lr: learning rate of the first step.
        seed: of the run.
    """

    shared: Shared
    model: nn.Module
    one: nn.Module
    samples: Sequence[CloudSample]
    steps: int
    batch: int
    lr: float
    seed: int

    def distilled(
        self, round: int, flat: NDArray[np.float32], students: Sequence[np.ndarray]
    ) -> NDArray[np.float32]:
        """The weights (P,) after the steps of a round that begin with `flat` and follow the students (P,)."""
        if not self.samples:
            return flat
        rng, params = generator(self.seed, f"ensemble/{round}"), adapters.trainable(self.one)
        adapters.write(self.one, flat)
        optimizer = torch.optim.Adam(params, lr=self.lr)
        self.one.train()
        for step in range(self.steps):
            some = [self.samples[int(i)] for i in rng.integers(len(self.samples), size=self.batch)]
            inputs = self._answered(some, flat)
            wanted = self._mean(inputs, students)
            optimizer.param_groups[0]["lr"] = self.lr * (1 + math.cos(math.pi * step / self.steps)) / 2
            optimizer.zero_grad()
            apart(wanted, vlm.forward(self.one, inputs).logits, inputs.answer_ids).backward()
            optimizer.step()
        self.one.eval()
        return adapters.read(self.one)

    def _answered(self, some: Sequence[CloudSample], flat: np.ndarray) -> vlm.Inputs:
        """The samples, with the answers of the weights `flat`."""
        adapters.write(self.model, flat)
        text, most, lie = self.shared.text, self.shared.max_answer_tokens, grids(some)
        seen, asked = [sample.tokens for sample in some], [sample.question_ids for sample in some]
        ids = vlm.answer(self.model, text, vlm.collate(text, seen, asked, grids=lie), most).ids
        ended = [len(answer) < most for answer in ids]
        return vlm.collate(text, seen, asked, ids, grids=lie, ended=ended).to(device_of(self.one))

    @torch.no_grad()
    def _mean(self, inputs: vlm.Inputs, students: Sequence[np.ndarray]) -> Tensor:
        """The students' logits (B, A, V), averaged."""
        found = torch.zeros(())
        for flat in students:
            adapters.write(self.model, flat)
            found = found + vlm.forward(self.model, inputs).logits / len(students)
        return found


def apart(wanted: Tensor, logits: Tensor, answer_ids: Tensor | None) -> Tensor:
    """KL(wanted || logits) in nats: the mean over an answer's steps, then over the samples.

    Args:
        wanted, logits: (B, A, V).
        answer_ids: (B, A) int64, padded with -100.
    """
    assert answer_ids is not None
    there, p, q = answer_ids != -100, wanted.log_softmax(-1), logits.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1) * there
    return (kl.sum(1) / there.sum(1).clamp_min(1)).mean()
