"""CEMA (Chen et al., ICLR 2024, arXiv 2402.17316), from an image classifier to answers in words.

Devices upload samples whose entropy lies in a band (`clients.cema`). The cloud's larger model teaches them by
3 H + 3 KL + CE, with 3 of 4 samples of a batch replayed from what came before: H is the student's own entropy
(`losses.sure_entropy`), KL and CE weigh a sample by e^(E_max - H_T), H_T the teacher's entropy. Norms, biases
and scales alone are trained, and go down in float16. `docs/method.md` says what departs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from cdc_flower.cloud.distill import Cloud
from cdc_flower.cloud.losses import UNRELIABLE
from cdc_flower.cloud.replay import PseudoLabelled
from cdc_flower.config import Config
from cdc_flower.setting import STRICT, setting
from strategies.cdc import CDC, PLAIN
from strategies.method import Traits


def doubt(lesson: PseudoLabelled) -> float:
    """The teacher's entropy in nats, mean over the steps, among its largest logits."""
    logits = lesson.top_logits.astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return float(-(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum(1).mean())


@dataclass(frozen=True, config=STRICT)
class CEMASettings:
    """Vectors alone learn at a larger rate than LoRA."""

    lr: float = setting(0.02, "learning rate of AdamW, in the place of `cloud.lr`", "cloud", gt=0, le=10)


class CEMACloud(Cloud):
    """Weighs samples by how sure the teacher is of them."""

    def __init__(self, config: Config, *others: Any) -> None:
        super().__init__(config, *others)
        for group in self.optimizer.param_groups:
            group["lr"] = config.of(CEMASettings).lr

    def _sure(self, labelled: Sequence[PseudoLabelled]) -> list[PseudoLabelled]:
        """All of them, each with its weight."""
        most = UNRELIABLE * math.log(self.shared.vocab)
        return [replace(q, weight=q.weight * math.exp(most - doubt(q))) for q in super()._sure(labelled)]


class CEMA(CDC):
    """An entropy band up, distillation with replay, vectors alone down."""

    name = "cema"
    about = "CEMA (arXiv 2402.17316): samples in a band of entropies go up, norms learn and come down"
    traits = Traits(labels=False, device_backprop=False, takes_late=True, shown=False)
    settings: ClassVar = {"cema": CEMASettings}
    needs: ClassVar[Mapping[str, Any]] = {
        "pair.adapter": "norms",
        **PLAIN,
        "cloud.losses": "ce=1,kl=3,entropy=3",
        "cloud.tau": 1.0,
        "cloud.replay-share": 0.75,
        "downlink.codec": "fp16",
    }
    work = "clients.cema:work"
    learner = CEMACloud
