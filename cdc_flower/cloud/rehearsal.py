"""The cloud trains on its own labelled data A, so that what devices taught it does not unlearn the source.

For methods whose server has weights and no teacher. The steps are those that a device takes: AdamW without
weight decay, from a fresh state each round, on the mean loss of the true answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from cdc_flower.cloud.lessons import grids
from cdc_flower.cloud.source import SourceItem
from cdc_flower.draws import generator
from cdc_flower.models import adapters, vlm
from cdc_flower.models.placement import device_of
from cdc_flower.models.shared import Shared


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Steps on A.

    Attributes:
        model: whose trainable weights learn; changed in place.
        items: what it learns from.
        steps: a round; 0 = none.
        batch: samples a step.
        lr: learning rate.
        seed: of the run.
    """

    shared: Shared
    model: nn.Module
    items: Sequence[SourceItem]
    steps: int
    batch: int
    lr: float
    seed: int

    def after(self, round: int, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weights (P,) after the steps of a round; `flat` itself where there are none."""
        if not self.steps or not self.items:
            return flat
        return self._stepped(flat, generator(self.seed, f"rehearsal/{round}"), self._loss)

    def _stepped(
        self,
        flat: NDArray[np.float32],
        rng: np.random.Generator,
        loss_of: Callable[[Sequence[SourceItem]], torch.Tensor],
    ) -> NDArray[np.float32]:
        """The weights (P,) after the steps of a round that begins with `flat`, towards less of a loss."""
        params = adapters.trainable(self.model)
        adapters.write(self.model, flat)
        optimizer = torch.optim.AdamW(params, lr=self.lr, weight_decay=0.0)
        self.model.train()
        for _ in range(self.steps):
            some = rng.integers(len(self.items), size=self.batch)
            optimizer.zero_grad()
            loss_of([self.items[int(i)] for i in some]).backward()
            optimizer.step()
        self.model.eval()
        return adapters.read(self.model)

    def _inputs(self, items: Sequence[SourceItem]) -> vlm.Inputs:
        """Samples with their true answers."""
        samples, text = [item.sample for item in items], self.shared.text
        return vlm.collate(
            text,
            [sample.tokens for sample in samples],
            [sample.question_ids for sample in samples],
            [text.answer_ids(item.answer) for item in items],
            [sample.positions for sample in samples],
            grids=grids(samples),
        ).to(device_of(self.model))

    def _loss(self, items: Sequence[SourceItem]) -> torch.Tensor:
        """Of the true answers, a mean over their tokens."""
        inputs = self._inputs(items)
        assert inputs.answer_ids is not None
        logits = vlm.forward(self.model, inputs).logits
        return F.cross_entropy(logits.flatten(0, 1), inputs.answer_ids.flatten(), ignore_index=-100)
