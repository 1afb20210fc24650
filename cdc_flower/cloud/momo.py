"""MoMoDistill (DCCL, arXiv 2104.06624): the cloud's model learns from its own labels and from device models.

"Model over models": no sample of a device is needed, only what it learned. A step takes a batch of the
cloud's labelled data A and one device's model, f_m, drawn anew:

    L = CE(y, f) + beta KL(f || f_m)

in the mean over the tokens of the true answers. The paper's second stage, in which the basis of patches is
learned with an encoder that predicts a device's patch, is left out; method `mmpg` has such an encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from cdc_flower.cloud.rehearsal import Rehearsal
from cdc_flower.cloud.source import SourceItem
from cdc_flower.draws import generator
from cdc_flower.models import adapters, vlm


@dataclass(frozen=True, eq=False)
class Momo(Rehearsal):
    """Steps on A towards true answers and the answers of devices' models.

    Attributes:
        beta: weight of the devices' models.
    """

    beta: float = 1.0

    def learn(
        self, round: int, flat: NDArray[np.float32], theirs: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """The weights (P,) after the steps of a round; `flat` itself where there are none, or no devices.

        Args:
            round: of the run.
            flat: (P,) weights to begin with.
            theirs: (P,) of each device that was heard.
        """
        if not self.steps or not self.items or not theirs:
            return flat
        rng = generator(self.seed, f"momo/{round}")

        def loss(items: Sequence[SourceItem]) -> torch.Tensor:
            inputs = self._inputs(items)
            self.model.eval()  # a device's model answers as devices do
            with torch.no_grad(), adapters.wearing(self.model, theirs[int(rng.integers(len(theirs)))]):
                wanted = vlm.forward(self.model, inputs).logits.log_softmax(-1)
            self.model.train()
            return mixed(vlm.forward(self.model, inputs).logits, wanted, inputs.answer_ids, self.beta)

        return self._stepped(flat, rng, loss)


def mixed(
    logits: torch.Tensor, theirs: torch.Tensor, answers: torch.Tensor | None, beta: float
) -> torch.Tensor:
    """CE(y, f) + beta KL(f || f_m).

    Args:
        logits: (B, A, V) of the cloud's model, f.
        theirs: (B, A, V) log-probabilities of a device's model, f_m.
        answers: (B, A) true ids, padded with -100.
        beta: see above.
    """
    assert answers is not None
    ours, there = logits.log_softmax(-1), answers != -100
    apart = (ours.exp() * (ours - theirs)).sum(-1)
    return F.nll_loss(ours[there], answers[there]) + beta * apart[there].mean()
