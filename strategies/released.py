"""CD-CCA as its authors released it (github.com/KongoCat/CDCCA), end to end, over these models and this wire.

Devices upload what they answer with little confidence, with masked tokens as zeros in 16 bits
(`clients.released`). The cloud's teacher answers, and the student learns its answers by plain cross entropy,
with the squared error of features and the difference of their wavelet bands, at the projector's output and at
the last layer, all weights 1: no KL, no confidence, no replay, no mean of adapters. Norms, biases and scales
are trained, and go down in NF4. Written from a description of the code; nothing is copied. `docs/method.md`
says what departs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from cdc_flower.cloud import losses
from cdc_flower.cloud.distill import Cloud, Learned, teach
from cdc_flower.cloud.replay import CloudSample, PseudoLabelled
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models.families import family_of
from cdc_flower.models.family import bare
from cdc_flower.models.placement import computing, device_of
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from strategies.cdc import CDC, PLAIN
from strategies.method import Setup, Traits

EPOCHS = 3
WARM_UP = 0.2 / EPOCHS  # of the steps
LAST = 5e-6 / 3e-5  # of the learning rate, after the last step
DECAY = 0.02  # of weights


@dataclass(frozen=True, config=STRICT)
class ReleasedSettings:
    """The released rate and batch, 3e-5 and 1, are those of a model of 7 billion weights."""

    sure: float = setting(
        0.5, "samples go up whose confidence, at temperature 0.1, is below it", "device", gt=0, le=1
    )

    lr: float = setting(3e-3, "learning rate of AdamW, at its highest", "cloud", gt=0, le=10)
    batch: int = setting(8, "samples a step", "cloud", ge=1, le=2**16)


def rate(done: float) -> float:
    """Share of the learning rate when this share of the steps is done: a short rise, then half a cosine."""
    if done < WARM_UP:
        return done / WARM_UP
    return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


class ReleasedCloud(Cloud):
    """Epochs over what came in the round, with the released losses."""

    def learn(self, samples: Sequence[CloudSample], round: int, weights: np.ndarray | None = None) -> Learned:
        """Let the teacher answer, and fit its answers for three epochs; all samples count the same."""
        own = self.config.of(ReleasedSettings)
        rng = np.random.default_rng([self.config.run.seed, 3, round])
        labelled, texts = teach(self.shared, self.teacher, samples, self.read)
        fresh = self._sure(labelled)
        orders = [rng.permutation(len(fresh)) for _ in range(EPOCHS)]
        batches = [o[at : at + own.batch] for o in orders for at in range(0, len(fresh), own.batch)]
        self.optimizer = torch.optim.AdamW(self._trained(), lr=own.lr, weight_decay=DECAY)
        terms: list[dict[str, float]] = []
        self.twin.train()
        for step, batch in enumerate(batches):
            for group in self.optimizer.param_groups:
                group["lr"] = own.lr * rate((step + 1) / len(batches))
            terms.append(self._step([fresh[i] for i in batch.tolist()]))
        self.twin.eval()
        made = [t for t in terms if t]
        means = {name: sum(t[name] for t in made) / len(made) for name in (made[0] if made else {})}
        left = len(labelled) - len(fresh)
        return Learned(self._shipped(), len(fresh), left, means, texts, len(terms) - len(made))

    def _terms(self, batch: list[PseudoLabelled], length: int = 0) -> dict[str, torch.Tensor]:
        """Those of the last layer, and the same of the projector's output, over the picture's tokens."""
        terms = super()._terms(batch, length)
        counts = [len(q.sample.tokens) for q in batch]
        tokens = torch.from_numpy(np.concatenate([q.sample.tokens for q in batch]))
        with torch.no_grad():
            teacher = _projected(self.teacher.model, tokens).to(device_of(self.twin))
        student = self.align(_projected(self.twin, tokens))
        s, t = (pad_sequence(list(rows.split(counts)), batch_first=True) for rows in (student, teacher))
        there = torch.arange(s.shape[1], device=s.device) < torch.tensor(counts, device=s.device)[:, None]
        terms["feature"] = terms["feature"] + losses.feature(s, t, there)
        terms["wavelet"] = terms["wavelet"] + losses.wavelet_l1(s, t)
        return terms


def _projected(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (M, D) in the language model's width, (M, H) float32."""
    family, base = family_of(model), bare(model)
    weight = next(base.model.get_submodule(family.projector).parameters())
    with computing():
        rows = family.project(base, tokens.to(weight.device, weight.dtype))
    return rows[:, : base.config.get_text_config().hidden_size].float()


class Released(CDC):
    """The released pipeline as one method."""

    name = "released"
    about = "CD-CCA as its authors released it: their rules for samples and tokens, losses, trained tensors"
    traits = Traits(labels=False, device_backprop=False, takes_late=True, shown=False)
    settings: ClassVar = {"released": ReleasedSettings}
    needs: ClassVar[Mapping[str, Any]] = {
        "pair.adapter": "norms",
        **PLAIN,
        "uplink.token-bits": 16,
        "uplink.transform": "none",
        "cloud.losses": "ce,feature,wavelet",
        "downlink.codec": "nf4",
    }
    work = "clients.released:work"
    learner = ReleasedCloud

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """As `cdc`; the order says which samples go up."""
        made = super().build(setup)
        made.order = {keys.SURE: setup.config.of(ReleasedSettings).sure}
        return made

    def cloud_work(self, samples: int) -> CloudWork:
        """The teacher answers what came, and is read again in every step of three epochs."""
        own = self.config.of(ReleasedSettings)
        steps = EPOCHS * math.ceil(samples / own.batch)
        batch = min(own.batch, samples)
        return replace(super().cloud_work(samples), taught=samples, steps=steps, batch=batch)
