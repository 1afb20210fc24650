"""How a `Reasoner` learns, beforehand and in the cloud, from whole clips that the cloud has (those of A).

Each step it gets anchor frames of some clips as they would come from devices (chosen by the rule of the run,
quantised by its uplink) and is asked for the tokens of all frames. The loss is the Gaussian negative log
likelihood, each value weighed by its deviation to the power 2 `BETA` (Seitzer and others, arXiv 2203.09168):
the plain one gives up on the mean of what it finds hard. Of several states, the line among them, the one with
the smallest error on clips that were set aside is kept, so there it is never worse than the line. On those
clips deviations are then stretched until nine of ten values lie where they should.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdc_flower.cloud.adr import Reasoner
from cdc_flower.cloud.trained import state
from cdc_flower.draws import generator

Pick = Callable[[NDArray[np.floating], int, np.random.Generator], NDArray[np.integer]]
"""Tokens (F, n, D) of a clip and K -> its anchor frames, (K,) rising."""

Arrive = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Tokens (M, D) -> what the cloud reads of them."""

Asked = tuple[Tensor, Tensor, Tensor]
"""Anchors (B, K, n, D) as they came, which frames they are (B, K), and the whole clips (B, F, n, D)."""

BETA = 0.5
ASIDE, MOST = 10, 128  # one clip in so many is set aside, and at most so many
TRIES = 6  # times that those are asked
SIGMAS = {0.5: 0.67449, 0.9: 1.64485, 0.99: 2.57583}
"""Share of a Gaussian -> deviations to either side of its mean within which it lies."""
FORM = "1"  # of the file: other code, another file


@dataclass(frozen=True)
class Lesson:
    """How a reasoner is trained.

    Attributes:
        anchors: numbers of anchor frames that it is asked with, in turn.
        steps: of AdamW; 0 = it stays the line.
        lr: the highest learning rate.
        tokens: of the clips of a step, about.
        seed: of its weights and of what it is asked.
    """

    anchors: tuple[int, ...] = (1, 2, 3, 4)
    steps: int = 300
    lr: float = 3e-3
    tokens: int = 2048
    seed: int = 0


def train(
    clips: NDArray[np.float16],
    pick: Pick,
    arrive: Arrive,
    lesson: Lesson,
    tell: Callable[[str, int, int], None] | None = None,
) -> Reasoner:
    """A reasoner that learned from whole clips; the same arguments give the same bits on one thread.

    Args:
        clips: (M, F, n, D), at least `ASIDE` of them.
        pick: the rule of anchor frames.
        arrive: the uplink's quantiser.
        lesson: how long, and with how many anchors.
        tell: progress.

    Raises:
        ValueError: fewer clips.
    """
    if len(clips) < ASIDE:
        raise ValueError(f"{len(clips)} clips for the reasoner; allowed: at least {ASIDE}")
    frames, places, width = clips.shape[1:]
    rng = generator(lesson.seed, "reasoner")
    came = np.stack([arrive(c.reshape(-1, width).astype(np.float32)) for c in clips]).reshape(clips.shape)

    def some(rows: NDArray[np.int64], k: int) -> Asked:
        at = np.stack([pick(clips[i], k, rng) for i in rows])
        sent, whole = came[rows[:, None], at], clips[rows]
        return torch.from_numpy(sent).float(), torch.from_numpy(at), torch.from_numpy(whole).float()

    order = rng.permutation(len(clips))
    held, own = order[: min(len(clips) // ASIDE, MOST)], order[len(clips) // ASIDE :]
    judged = [some(held, k) for k in lesson.anchors]
    made = _begun(clips[own], lesson.seed)
    optimiser = torch.optim.AdamW(made.parameters(), lesson.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lesson.lr, total_steps=max(lesson.steps, 2), pct_start=0.1
    )
    best, least = state(made), _squares(made, judged)
    batch, every = max(1, lesson.tokens // (frames * places)), max(1, lesson.steps // TRIES)
    for step in range(1, lesson.steps + 1):
        sent, at, whole = some(rng.choice(own, batch), lesson.anchors[step % len(lesson.anchors)])
        found, log_variance = made(sent, at)
        loss = likelihood((whole - found) / made.spread, log_variance - 2 * made.spread.log())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % every == 0 or step == lesson.steps:
            now = _squares(made, judged)
            best, least = (state(made), now) if now < least else (best, least)
            if tell is not None:
                tell("reasoner", step, lesson.steps)
    made.load_state_dict(best)
    off = torch.cat([deviations(made, asked).flatten() for asked in judged])
    if len(off):
        made.stretch *= float(np.quantile(off.numpy(), 0.9)) / SIGMAS[0.9]
    return made.eval()


def _begun(clips: NDArray[np.float16], seed: int) -> Reasoner:
    """A reasoner that was not trained, scaled to clips."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Reasoner(*clips.shape[1:])
    flat = clips.reshape(-1, clips.shape[-1]).astype(np.float64)
    made.centre.copy_(torch.from_numpy(flat.mean(0)))
    made.spread.copy_(torch.from_numpy(flat.std(0)).clamp_min(1e-6))
    return made


def likelihood(off: Tensor, log_variance: Tensor) -> Tensor:
    """The negative log likelihood of errors `off`, weighed; without its constant, mean over values."""
    each = (off.square() * (-log_variance).exp() + log_variance) / 2
    return (each * (BETA * log_variance.detach()).exp()).mean()


@torch.no_grad()
def _squares(made: Reasoner, judged: Sequence[Asked]) -> float:
    """The sum of squared errors."""
    return sum(float((made(sent, at)[0] - whole).double().square().sum()) for sent, at, whole in judged)


@torch.no_grad()
def deviations(made: Reasoner, asked: Asked) -> Tensor:
    """Errors of all frames that are no anchors, (frames, n, D), each in deviations that it says."""
    sent, at, whole = asked
    found, log_variance = made(sent, at)
    there = torch.zeros(whole.shape[:2], dtype=torch.bool).scatter(1, at, True)
    return ((whole - found).abs() * (-0.5 * log_variance).exp())[~there]


def coverage(made: Reasoner, asked: Asked) -> dict[float, float]:
    """Share of a Gaussian -> share of values that lie within as many deviations; of frames that are no
    anchors."""
    off = deviations(made, asked)
    return {share: float((off <= sigmas).double().mean()) for share, sigmas in SIGMAS.items()}


def digest(clips: NDArray[np.float16], said: Sequence[object]) -> str:
    """A name for the reasoner of clips and of what is `said` of rule, uplink and lesson."""
    own = hashlib.sha256(repr((FORM, clips.shape, tuple(said))).encode())
    own.update(np.ascontiguousarray(clips).tobytes())
    return own.hexdigest()[:32]
