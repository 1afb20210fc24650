"""How the hypernetwork is trained: beforehand, in the cloud, by episodes over the users of A.

An episode is one user: some of its clips with their questions and without an answer make an adapter, and the
student that wears it is judged by the user's other clips, whose answers A has (cross entropy). The gradient
goes through the student into the hypernetwork; the student itself stays as it is. Users that are held out say
which state is kept. The same settings give the same bits (on one thread), so a trained state is kept in the
cache under a digest of all that decides it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.func import functional_call

from cdc_flower.cloud.fda import HEAD, Adaptor, Seen
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.data.features import Grid
from cdc_flower.disk import replace
from cdc_flower.draws import generator
from cdc_flower.models import adapters, several, vlm
from cdc_flower.models.shared import Shared

HELD = 0.1  # of the users
LEAST, MOST = 2, 32  # samples that say who a user is, in an episode
USERS, QUESTIONS = 4, 24  # of a step, and of each user in it
QUICK = 16  # users of a step, where the head alone is generated
LR = 3e-3  # of Adam at most; it rises over a twentieth of the steps and falls to 0 as a cosine
LOOKS = 8  # at the held-out users, in a training
AT_ONCE = 64  # samples that the head's inputs are computed of
JUDGED = 32  # held-out users that are looked at, at most
_log = getLogger(__name__)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class User:
    """A user of A: n samples; those of one clip share their tokens.

    Attributes:
        name: who.
        seen: all of them, as the cloud would get to know them of a device.
        samples: with all tokens.
        answers: n lists of ids, the labels.
    """

    name: str
    seen: Seen
    samples: Sequence[CloudSample]
    answers: Sequence[Sequence[int]]

    @property
    def clips(self) -> list[list[int]]:
        """The samples of each clip."""
        found: dict[int, list[int]] = {}
        for i, sample in enumerate(self.samples):
            found.setdefault(id(sample.tokens), []).append(i)
        return list(found.values())


@dataclass(frozen=True)
class Episode:
    """Of one user: samples that say who it is, and samples of other clips that it is judged by."""

    user: User
    support: list[int]
    queries: list[int]


def drawn(user: User, rng: np.random.Generator, support: int = 0) -> Episode:
    """An episode of a user.

    Args:
        user: whose; of one with a single clip the clip is both.
        rng: draws.
        support: samples that say who it is, at most; 0 = drawn, `LEAST` to `MOST`.
    """
    clips = user.clips
    order = rng.permutation(len(clips)).tolist()
    cut = max(1, len(order) // 2)
    asked = [i for clip in order[:cut] for i in rng.permutation(clips[clip]).tolist()][:QUESTIONS]
    rest = [i for clip in order[cut:] or order for i in clips[clip]]
    most = support or int(rng.integers(LEAST, MOST + 1))
    return Episode(user, rng.permutation(rest)[:most].tolist(), asked)


class _Asked(nn.Module):
    """The student's logits as the forward pass of a module, so that its parameters can be others' values."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: vlm.Inputs, of: list[int]) -> Tensor:
        """Logits (B, A, V) of the answers."""
        if several.possible(self.model, inputs, of):
            return several.answered(self.model, inputs, of)
        return vlm.forward(self.model, inputs).logits


class _Head(nn.Module):
    """As `_Asked`, from the hidden states (B, A, H) that the head reads."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (B, A, V) of the answers."""
        return vlm.logits(self.model, hidden).float()


class Student:
    """The student that wears generated values, for gradients.

    Where these are the head's alone, what the head reads of a user's samples never changes, and is computed
    once: a step then costs a thousandth.

    Args:
        shared: prompt and tokenizer.
        twin: the float student with its adapter; its small LoRA layers are made to train as one product.
        places: where the generated values stand in the flat adapter.
    """

    def __init__(self, shared: Shared, twin: nn.Module, places: np.ndarray) -> None:
        self.shared, self.model = shared, adapters.train_merged(twin)
        layout, at = adapters.layout(twin), 0
        taken = set(places.tolist())
        self.parts: list[tuple[str, tuple[int, ...], int]] = []
        for name, shape, size in zip(layout.names, layout.shapes, layout.sizes, strict=True):
            if at in taken:
                self.parts.append((f"model.{name}", shape, size))
            at += size
        self.head_alone = all(HEAD in name for name, _, _ in self.parts)
        self._read: dict[int, tuple[Tensor, Tensor]] = {}  # by the user's id

    def logits(self, values: Tensor, episode: Episode) -> tuple[Tensor, Tensor]:
        """Logits (B, A, V) of the queries, and the answers' ids (B, A), -100 in padding."""
        split = values.split([size for _, _, size in self.parts])
        own = {name: v.view(shape) for (name, shape, _), v in zip(self.parts, split, strict=True)}
        if self.head_alone:
            hidden, wanted = (x[episode.queries] for x in self.read(episode.user))
            return functional_call(_Head(self.model), own, (hidden,)), wanted
        *asked, wanted = self._inputs(episode.user, episode.queries)
        return functional_call(_Asked(self.model), own, tuple(asked)), wanted

    def _inputs(self, user: User, rows: Sequence[int]) -> tuple[vlm.Inputs, list[int], Tensor]:
        samples = [user.samples[i] for i in rows]
        inputs = vlm.collate(
            self.shared.text,
            [s.tokens for s in samples],
            [s.question_ids for s in samples],
            [user.answers[i] for i in rows],
            [s.positions for s in samples],
            grids=[Grid(*s.grid) for s in samples],
        )
        numbers: dict[int, int] = {}
        of = [numbers.setdefault(id(s.tokens), len(numbers)) for s in samples]
        assert inputs.answer_ids is not None
        return inputs, of, inputs.answer_ids

    @torch.no_grad()
    def read(self, user: User) -> tuple[Tensor, Tensor]:
        """What the head reads (n, A, H) to answer each of a user's samples, and the answers' ids (n, A)."""
        if id(user) not in self._read:
            seen: list[Tensor] = []
            hook = vlm.parts(self.model)[2].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
            order = [i for clip in user.clips for i in clip]
            rows, wanted = [order[at : at + AT_ONCE] for at in range(0, len(order), AT_ONCE)], []
            for some in rows:
                *asked, ids = self._inputs(user, some)
                _Asked(self.model)(*asked)
                wanted.append(ids)
            hook.remove()
            most = max(ids.shape[1] for ids in wanted)
            hidden = torch.cat([nn.functional.pad(x, (0, 0, 0, most - x.shape[1])) for x in seen])
            padded = torch.cat([nn.functional.pad(x, (0, most - x.shape[1]), value=-100) for x in wanted])
            back = torch.tensor(order).argsort()
            self._read[id(user)] = hidden[back], padded[back]
        return self._read[id(user)]

    def loss(self, values: Tensor, episode: Episode) -> Tensor:
        """Cross entropy: the mean over the queries of the sum over an answer's ids, end included."""
        logits, wanted = self.logits(values, episode)
        return _cross_entropy(logits, wanted) / len(wanted)

    @torch.no_grad()
    def right(self, values: Tensor, episode: Episode) -> tuple[NDArray[np.bool_], float]:
        """Whether each query (B,) is answered word for word, and the sum of their losses."""
        logits, wanted = self.logits(values, episode)
        hit = ((logits.argmax(-1) == wanted) | (wanted == -100)).all(1)
        return hit.numpy(), float(_cross_entropy(logits, wanted))


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="sum"
    )


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
    """Train the hypernetwork in place; it ends in the state with the lowest loss on held-out users.

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
    best = (looks[0].loss, _state(adaptor))
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        for i in rng.choice(len(taught), count, replace=len(taught) < count).tolist():
            episode = drawn(taught[i], rng)
            values = adaptor.generated(adaptor.summary(taught[i].seen.some(episode.support)))
            (student.loss(values, episode) / count).backward()
        norm = nn.utils.clip_grad_norm_(adaptor.parameters(), 1.0)
        if bool(torch.isfinite(norm)):
            optimizer.step()
        rate.step()
        if step % max(1, steps // LOOKS) == 0 or step == steps:
            looks.append(look(adaptor, student, judged, step))
            _log.info("adaptor: %s", looks[-1])
            if looks[-1].loss < best[0]:
                best = (looks[-1].loss, _state(adaptor))
        if progress is not None:
            progress("hypernetwork", step, steps)
    adaptor.load_state_dict(best[1])
    student.model.eval()
    return looks


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min((step + 1) / warm, 0.5 * (1 + float(np.cos(np.pi * min(step, steps) / max(1, steps)))))


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@torch.no_grad()
def look(adaptor: Adaptor, student: Student, episodes: Sequence[Episode], step: int = 0) -> Looked:
    """Loss and accuracy on users' queries, each with the adapter that its own support makes."""
    sums = np.zeros(3)
    for one in episodes:
        values = adaptor.generated(adaptor.summary(one.user.seen.some(one.support)))
        hit, loss = student.right(values, one)
        sums += hit.sum(), len(hit), loss
    right, _, lost = (sums / max(1.0, sums[1])).tolist()
    return Looked(step, lost, right)


def kept(path: Path, adaptor: Adaptor, make: Callable[[], object]) -> Adaptor:
    """The hypernetwork in the state of a file; where there is none it is made and written.

    Raises:
        DiskError: it cannot be written.
    """
    if path.is_file():
        try:
            adaptor.load_state_dict(load_file(path))
            return adaptor.eval()
        except (SafetensorError, ValueError, RuntimeError, OSError) as err:  # damaged: it is made anew
            _log.warning("%s cannot be used, it is made anew: %s", path, err)
    make()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, save(_state(adaptor)))
    return adaptor.eval()


def digest(parts: Mapping[str, Any]) -> str:
    """sha256 hex of all that decides a training."""
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()
