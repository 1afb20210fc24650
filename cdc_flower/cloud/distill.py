"""AKD: the teacher answers what the devices sent, and the twin's adapter learns it (after arXiv 2312.16279).

The teacher sees the same tokens as the device sent, nothing else: no picture, no label; one with another
tower sees the picture that was sent instead (`cloud.lessons`). Departures from the released code: confidence
weights and a threshold, KL on logits, replay; its feature and wavelet losses are options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import nn

from cdc_flower.cloud import losses
from cdc_flower.cloud.further import with_more
from cdc_flower.cloud.lessons import grids, sure, teach
from cdc_flower.cloud.passes import passes, sequence
from cdc_flower.cloud.replay import CloudSample, PseudoLabelled, Replay
from cdc_flower.config import Config
from cdc_flower.models import adapters, room, several, vlm
from cdc_flower.models.placement import device_of
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import Teacher
from cdc_flower.stages import CloudConfig

_log = getLogger(__name__)
__all__ = ["Cloud", "CloudSample", "Learned", "teach"]


@dataclass(frozen=True)
class Learned:
    """The result of one round of distillation."""

    adapter: np.ndarray  # (P,) float32: what the devices should hold next
    taught: int  # samples the teacher was confident about
    dropped: int  # samples it was not
    losses: dict[str, float]  # means over the steps
    teacher_answers: list[str]  # one per sample, in order, also for the dropped
    skipped: int = 0  # steps without a finite gradient: they changed nothing


class Cloud:
    """The cloud's memory: the twin, its optimizer and the replay buffer.

    Args:
        twin: float student with trainable adapter; changed in place.
        source: what is taught of the source samples that the cloud has (`source_lessons`).
        longest: ids of the longest sequence that is expected (`passes.longest`); batches of longer ones are
            cut into parts. 0 = no batch is cut.
        read: the same of what the teacher reads, where that is not what the student reads.

    Raises:
        ConfigError: terms of the loss that the teacher does not allow.
    """

    def __init__(
        self,
        config: Config,
        shared: Shared,
        teacher: Teacher,
        twin: nn.Module,
        source: Sequence[PseudoLabelled] = (),
        longest: int = 0,
        read: int = 0,
    ) -> None:
        self.config, self.shared, self.teacher = config, shared, teacher
        self.longest, self.read = longest, read or longest
        answer = shared.max_answer_tokens + 1
        self.one = room.frugal(twin, room.Pass(max(longest, answer), answer, train=True))
        self.twin = adapters.train_merged(twin)
        cloud = config.cloud
        self.weights, says = losses.possible(cloud.losses, teacher.words, teacher.own is None)
        if says:
            _log.info(says)
        self._needs_teacher = losses.needs_teacher(cloud.losses)
        self.replay = Replay(self._sure(source), cloud.replay_bytes)
        self.params = adapters.trainable(twin)
        self.mean = [
            p.detach().clone() for p in self.params
        ]  # what is shipped: a running mean of the adapter
        widths = [vlm.parts(model)[1].config.hidden_size for model in (twin, teacher.model)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            self.align = nn.Linear(*widths, bias=False).to(device_of(twin))
        self.optimizer = torch.optim.AdamW(self._trained(), lr=cloud.lr, weight_decay=0.0)

    def learn(self, samples: Sequence[CloudSample], round: int, weights: np.ndarray | None = None) -> Learned:
        """Let the teacher answer `samples` and distil for `cloud.steps` steps.

        `cloud.replay-share` of every batch is samples of the past. With no confident sample nothing is
        learned. `weights` (one per sample, 0 to 1) say how much each counts. What is returned has the
        teacher's answer to every sample, in order.
        """
        cloud = self.config.cloud
        rng = np.random.default_rng([self.config.run.seed, 3, round])
        labelled, texts = teach(self.shared, self.teacher, samples, self.read)
        if weights is not None:
            labelled = [replace(q, weight=float(w)) for q, w in zip(labelled, weights, strict=True)]
        fresh = self._further(samples, labelled, round)
        sums: dict[str, float] = {}
        skipped = 0
        if fresh:
            most, of_past = pictures(cloud), round_half(pictures(cloud) * cloud.replay_share)
            self.twin.train()
            for _ in range(cloud.steps):
                old = self.replay.draw(of_past, rng)
                new = [fresh[int(i)] for i in rng.integers(len(fresh), size=most - len(old))]
                terms = self._step([q for one in new + old for q in one.some(cloud.questions, rng)])
                skipped += not terms
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value
            self.twin.eval()
            self.replay.add(fresh, rng)
        if skipped:
            _log.warning("round %s: %s of %s steps had no finite gradient", round, skipped, cloud.steps)
        means = {name: total / max(1, cloud.steps - skipped) for name, total in sums.items()}
        return Learned(self._shipped(), len(fresh), len(labelled) - len(fresh), means, texts, skipped)

    def _further(
        self, asked: Sequence[CloudSample], labelled: Sequence[PseudoLabelled], round: int
    ) -> list[PseudoLabelled]:
        """What teaches of what came, with further questions about its pictures; as many source pictures get
        some, too.
        """
        new, source = self._sure(labelled), self.replay.source
        count = self.config.cloud.questions - 1
        if not count or not new:
            return new
        seen = [s for s, q in zip(asked, labelled, strict=True) if self._is_sure(q)]
        rng = np.random.default_rng([self.config.run.seed, 5, round])

        def answer(some: Sequence[CloudSample]) -> list[PseudoLabelled]:
            return teach(self.shared, self.teacher, some, self.read)[0]

        def ask(pictures: Sequence[CloudSample], lessons: Sequence[PseudoLabelled]) -> list[PseudoLabelled]:
            return with_more(pictures, lessons, asked, count, rng, answer, self._is_sure)

        if source and self.teacher.own is None:  # else it does not read what is kept of them
            rows = rng.permutation(len(source))[: len(new)].tolist()
            some = [source[i] for i in rows]
            for i, one in zip(rows, ask([q.sample for q in some], some), strict=True):
                source[i] = one
        return ask(seen, new)

    def _sure(self, labelled: Sequence[PseudoLabelled]) -> list[PseudoLabelled]:
        """Samples whose answers teach."""
        return [q for q in labelled if self._is_sure(q)]

    def _is_sure(self, q: PseudoLabelled) -> bool:
        return sure(q, self.config.cloud.confidence)

    def _shipped(self) -> np.ndarray:
        """The running mean of the adapter (P,); the learning rate never falls, so one step is noisy."""
        return _flat(self.mean)

    def state(self) -> dict[str, Any]:
        """The twin's adapter, the running mean, the optimizer's moments and the past, as flat float32 arrays.

        What never changes (the start, the source samples) is made again from the settings.
        """
        moments = [self.optimizer.state.get(p, {}) for p in self._trained()]
        stepped = [m for m in moments if m]
        return {
            "params": _flat(self.params),
            "mean": _flat(self.mean),
            "align": _flat(list(self.align.parameters())),
            "stepped": np.array([bool(m) for m in moments]),
            "steps": _flat([m["step"] for m in stepped]),
            "exp_avg": _flat([m["exp_avg"] for m in stepped]),
            "exp_avg_sq": _flat([m["exp_avg_sq"] for m in stepped]),
            **{f"replay.{name}": value for name, value in self.replay.state().items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken.

        Raises:
            ValueError: a state of another model.
        """
        _fill(self.params, state["params"])
        _fill(self.mean, state["mean"])
        _fill(list(self.align.parameters()), state["align"])
        some = [p for p, stepped in zip(self._trained(), state["stepped"], strict=True) if stepped]
        moments = [
            {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            for p in some
        ]
        for name, saved in (("step", "steps"), ("exp_avg", "exp_avg"), ("exp_avg_sq", "exp_avg_sq")):
            _fill([m[name] for m in moments], state[saved])
        self.optimizer.state.clear()
        self.optimizer.state.update(zip(some, moments, strict=True))
        own = {name.removeprefix("replay."): v for name, v in state.items() if name.startswith("replay.")}
        self.replay.load(own)

    def _trained(self) -> list[nn.Parameter]:
        """What the optimizer trains, in its order."""
        return [*self.params, *self.align.parameters()]

    def _step(self, batch: list[PseudoLabelled]) -> dict[str, float]:
        """One optimizer step, and the terms of its loss; {} where the gradient is not finite: then there is
        none. (Clipping would make NaN of an infinite gradient, and NaN stays in the adapter.)
        """
        cloud = self.config.cloud
        sums: dict[str, float] = {}
        self.optimizer.zero_grad()
        one = replace(self.one, length=max(sequence(self.shared, q.sample, len(q.answer_ids)) for q in batch))
        fit = one.length * room.rows(room.text_of(self.twin), one)
        for parts in passes(self.shared, batch, min(fit, len(batch) * self.longest or fit)):
            terms: dict[str, torch.Tensor] = {}
            for part in parts:
                for name, value in self._terms(part.rows, part.length).items():
                    share = part.positions if losses.LOSSES[name].of_positions else part.samples
                    terms[name] = terms.get(name, torch.zeros(())) + value * (share * part.group)
            torch.stack(list(terms.values())).sum().backward()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        norm = nn.utils.clip_grad_norm_(self.params, 1.0)
        others = [p.grad for p in self.align.parameters() if p.grad is not None]
        if (
            not all(bool(torch.isfinite(x).all()) for x in (norm, *others))
            or not np.isfinite([*sums.values()]).all()
        ):
            self.optimizer.zero_grad()
            return {}
        self.optimizer.step()
        with torch.no_grad():
            for mean, p in zip(self.mean, self.params, strict=True):
                mean.lerp_(p, 1 - cloud.ema_decay)
        return sums

    def _terms(self, batch: list[PseudoLabelled], length: int = 0) -> dict[str, torch.Tensor]:
        """The weighted losses of a batch, each a mean; sequences are at least `length` long."""
        cloud, text = self.config.cloud, self.shared.text
        device = device_of(self.twin)
        inputs = vlm.collate(
            text,
            [q.sample.tokens for q in batch],
            [q.sample.question_ids for q in batch],
            [q.answer_ids for q in batch],
            [q.sample.positions for q in batch],
            length,
            grids([q.sample for q in batch]),
            [q.ended for q in batch],
        ).to(device)
        assert inputs.answer_ids is not None
        numbers: dict[int, int] = {}  # of pictures, in the order in which they first come
        of = [numbers.setdefault(id(q.sample.tokens), len(numbers)) for q in batch]
        out = None
        if self._needs_teacher or not several.possible(self.twin, inputs, of):
            out = vlm.forward(self.twin, inputs)
        logits = several.answered(self.twin, inputs, of) if out is None else out.logits
        a, k = inputs.answer_ids.shape[1], batch[0].top_ids.shape[1]
        top_ids = np.zeros((len(batch), a, k), np.int64)
        top_logits = np.zeros((len(batch), a, k), np.float32)
        for i, q in enumerate(batch):
            top_ids[i, : len(q.top_ids)], top_logits[i, : len(q.top_ids)] = q.top_ids, q.top_logits
        counts = [q.weight * (q.confidence if cloud.confidence_weighted else 1.0) for q in batch]
        weight = torch.tensor(counts, device=device)
        hidden = None, None
        if self._needs_teacher and out is not None:
            with torch.no_grad():
                teacher = vlm.forward(self.teacher.model, inputs).hidden.float().to(device)
            hidden = self.align(out.hidden.float()), teacher
        seen = losses.Seen(
            logits,
            inputs.answer_ids,
            torch.from_numpy(top_ids).to(device),
            torch.from_numpy(top_logits).to(device),
            weight,
            cloud.tau,
            inputs.mask,
            *hidden,
        )
        return {name: w * losses.LOSSES[name].function(seen) for name, w in self.weights.items()}


def pictures(cloud: CloudConfig) -> int:
    """Pictures of a step: each is taught with up to `questions` questions, of which `batch` are a step's."""
    return max(1, cloud.batch // cloud.questions)


def round_half(x: float) -> int:
    """Round half up, so that a share of 0.5 of 33 is 17 everywhere."""
    return int(np.floor(x + 0.5))


def _flat(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """All values of float32 tensors one after another, on the host; a copy."""
    parts = [t.detach().flatten().float().cpu() for t in tensors]
    return torch.cat([torch.zeros(0), *parts]).numpy()


@torch.no_grad()
def _fill(tensors: Sequence[torch.Tensor], flat: np.ndarray) -> None:
    """Put back, in place, what `_flat` gave.

    Raises:
        ValueError: more or fewer values than the tensors have.
    """
    sizes = [t.numel() for t in tensors]
    if flat.shape != (sum(sizes),):
        raise ValueError(f"saved tensors have {flat.shape} values, this model's have ({sum(sizes)},)")
    for tensor, part in zip(tensors, torch.from_numpy(flat).split(sizes), strict=True):
        tensor.copy_(part.view_as(tensor))
