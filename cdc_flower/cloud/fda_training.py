"""How the hypernetwork is trained: beforehand, in the cloud, by episodes (`cloud.episodes`).

Users that are held out say which state is kept. The same settings give the same bits (on one thread), so a
trained state is kept in the cache (`cloud.trained`) under a digest of all that decides it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import nn

from cdc_flower.cloud.episodes import MOST, Episode, Student, User, drawn
from cdc_flower.cloud.fda import Adaptor
from cdc_flower.cloud.trained import state
from cdc_flower.draws import generator

HELD = 0.1  # of the users
JUDGED = 32  # held-out users that are looked at, at most
USERS, QUICK = 4, 16  # of a step; where the head alone is generated
LR = 3e-3  # of Adam at most; it rises over a twentieth of the steps and falls to 0 as a cosine
LOOKS = 8  # at the held-out users, in a training
_log = getLogger(__name__)
Progress = Callable[[str, int, int], None]


def parted(users: Sequence[User]) -> tuple[list[User], list[User]]:
    """Users to train on, and users held out: by a stable hash of their names, at least one of each of two."""
    order = sorted(users, key=lambda u: hashlib.sha256(u.name.encode()).digest())
    held = min(max(1, round(HELD * len(order))), len(order) - 1) if len(order) > 1 else 0
    return order[held:], order[:held] or order[held:]


@dataclass(frozen=True)
class Looked:
    """What held-out users said after a step of training."""

    step: int
    loss: float
    accuracy: float


def train(
    adaptor: Adaptor,
    student: Student,
    users: Sequence[User],
    steps: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Looked]:
    """Train the hypernetwork in place; it ends in the state with the lowest loss on held-out users. One
    adapter for all, a control, ends in that with the most right answers, which may be the one it began with:
    a loss that falls because three words are told to have equal chances is worth nothing to a device.

    Args:
        adaptor: as it begins.
        student: wears what it generates.
        users: of A.
        steps: of the optimiser, `USERS` episodes each, or `QUICK`.
        seed: of the episodes.
        progress: called with stage, done, total.
    """
    taught, held = parted(users)
    rng = generator(seed, "episodes")
    judged = [drawn(u, generator(seed, "held out/" + u.name), MOST) for u in held[:JUDGED]]
    adaptor.standardise(np.concatenate([u.seen.features for u in taught]))
    count = QUICK if student.head_alone else USERS
    optimizer = torch.optim.Adam(adaptor.parameters(), lr=LR)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: _rate(i, steps))
    student.model.train()
    looks = [look(adaptor, student, judged, 0)]
    best = (_worth(adaptor, looks[0]), state(adaptor))
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        for i in rng.choice(len(taught), count, replace=len(taught) < count).tolist():
            episode = drawn(taught[i], rng)
            values = adaptor.generated(adaptor.summary(episode.seen))
            (student.loss(values, episode) / count).backward()
        norm = nn.utils.clip_grad_norm_(adaptor.parameters(), 1.0)
        if bool(torch.isfinite(norm)):
            optimizer.step()
        rate.step()
        if step % max(1, steps // LOOKS) == 0 or step == steps:
            looks.append(look(adaptor, student, judged, step))
            _log.info("adaptor: %s", looks[-1])
            worth = _worth(adaptor, looks[-1])
            if worth > best[0]:
                best = (worth, state(adaptor))
        if progress is not None:
            progress("hypernetwork", step, steps)
    adaptor.load_state_dict(best[1])
    student.model.eval()
    return looks


def _worth(adaptor: Adaptor, looked: Looked) -> float:
    """What the state that is kept has most of."""
    return looked.accuracy if adaptor.constant else -looked.loss


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min((step + 1) / warm, 0.5 * (1 + float(np.cos(np.pi * min(step, steps) / max(1, steps)))))


@torch.no_grad()
def look(adaptor: Adaptor, student: Student, episodes: Sequence[Episode], step: int = 0) -> Looked:
    """Loss and accuracy on users' queries, each with the adapter that its own support makes."""
    sums = np.zeros(3)
    for one in episodes:
        values = adaptor.generated(adaptor.summary(one.seen))
        hit, loss = student.right(values, one)
        sums += hit.sum(), len(hit), loss
    right, _, lost = (sums / max(1.0, sums[1])).tolist()
    return Looked(step, lost, right)


def digest(parts: Mapping[str, Any]) -> str:
    """sha256 hex of all that decides a training."""
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()
