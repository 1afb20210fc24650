"""Learning online and without labels: batch by batch a device answers, then learns from what it saw.

One step a batch, in the order of the stream (arXiv 2006.10726, section 3): a sample is answered by what the
batches before it have left, and is never seen again. What a device keeps is one vector, its adapter first,
then whatever the learner needs to go on (`Learner.kept`), moments of the optimizer among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from cdc_flower.wire.counts import Counts
from clients.counts import answering, passes
from clients.inference import Ask, Work
from clients.local import reply
from clients.store import Adapter
from clients.task import Task

MOST = {"batch": 2**16, "lr": 10**6}
"""What every order may ask for: no more than the settings allow."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples, answered.

    Attributes:
        tokens: B arrays (n_i, D) float16.
        asked, ids: B id lists each: questions and answers.
        grids: of the B pictures.
        places: of the tokens that are there (n_i,); None = all.
    """

    task: Task
    tokens: Sequence[np.ndarray]
    asked: Sequence[list[int]]
    ids: Sequence[list[int]]
    grids: Sequence[Grid]
    places: Sequence[np.ndarray] | None = None

    def inputs(self) -> vlm.Inputs:
        """The samples with their answers; one that was cut has no end."""
        most, text = self.task.shared.max_answer_tokens, self.task.shared.text
        ended = [len(answer) < most for answer in self.ids]
        return vlm.collate(
            text, self.tokens, self.asked, self.ids, self.places, grids=self.grids, ended=ended
        )

    def seen(self, rows: Sequence[int], places: Sequence[np.ndarray]) -> Batch:
        """Some of the samples, of whose tokens those at `places` (K_i,) are there."""
        tokens = [self.tokens[i][there] for i, there in zip(rows, places, strict=True)]
        asked, ids = [self.asked[i] for i in rows], [self.ids[i] for i in rows]
        return Batch(self.task, tokens, asked, ids, [self.grids[i] for i in rows], places)

    def read(self) -> Counts:
        """What one pass over the samples and their answers takes."""
        whole = passes(self.task, self.tokens, self.asked, [len(ids) for ids in self.ids], self.grids)
        return whole + Counts(positions=sum(map(len, self.tokens)) - sum(grid.n for grid in self.grids))


class Learner(Protocol):
    """What learns on a device in a round."""

    model: nn.Module

    def worn(self) -> Adapter:
        """The adapter that answers the next batch."""
        ...

    def learn(self, batch: Batch) -> tuple[float, Counts]:
        """One step; the loss before it, and what was computed."""
        ...

    def kept(self) -> np.ndarray:
        """All that is needed to go on, float32, the adapter that answers first."""
        ...


def steps(logits: Tensor, wanted: Tensor | None) -> Tensor:
    """Weights (B, A) of steps of answers, by which a quantity's sum is its mean over an answer's steps,
    then over the samples.

    Args:
        logits: (B, A, V).
        wanted: (B, A) ids, padded with -100.
    """
    assert wanted is not None
    there = (wanted != -100).to(logits)
    return there / there.sum(1, keepdim=True).clamp_min(1) / len(there)


def adam(
    values: np.ndarray, gradient: Tensor, moments: np.ndarray, lr: float
) -> tuple[np.ndarray, np.ndarray]:
    """One step of Adam (arXiv 1412.6980) on values (n,).

    Args:
        gradient: (n,).
        moments: () before the first step, then what the last one gave: (1 + 2n,), steps and both means.

    Returns:
        the values and the moments after it.
    """
    p = nn.Parameter(torch.from_numpy(values.copy()))
    optimizer = torch.optim.Adam([p], lr=lr)
    if len(moments):
        step, first, second = torch.from_numpy(moments.copy()).split([1, len(values), len(values)])
        optimizer.state[p] = {"step": step[0], "exp_avg": first, "exp_avg_sq": second}
    p.grad = gradient.detach().cpu().float()
    optimizer.step()
    after = optimizer.state[p]
    parts = after["step"].reshape(1), after["exp_avg"], after["exp_avg_sq"]
    return p.detach().numpy(), torch.cat(parts).numpy()


def online(task: Task, learner: Learner) -> Work:
    """One round: answer a batch, learn from it, and so on."""
    counts, losses, said, size = Counts(), list[float](), list[str](), int(task.order["batch"])
    tokens, asked, grids = task.tokens(task.items), task.questions(task.items), task.grids(task.items)
    for at in range(0, len(asked), size):
        some = slice(at, at + size)
        part = tokens[some], asked[some], grids[some]
        answers = yield Ask(task, learner.model, learner.worn(), *part[:2], grids=part[2])
        said += answers.texts
        loss, computed = learner.learn(Batch(task, *part[:2], answers.ids, part[2]))
        losses.append(loss)
        counts += answering(task, *part[:2], answers.ids, part[2]) + computed
    task.store.say(task.round, said)
    task.store.hold(Adapter.of(learner.kept(), task.round))
    return reply(len(asked), float(np.mean(losses)) if losses else 0.0, counts)
