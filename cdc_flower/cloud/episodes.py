"""What the hypernetwork learns from: episodes over the users of A, judged by a student that wears the result.

An episode is one user: some of its clips with their questions and without an answer make an adapter, and the
student that wears it is judged by the user's other clips, whose answers A has (cross entropy). The gradient
goes through the student into the generated values; the student itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from cdc_flower.cloud.fda import Seen
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.data.features import Grid
from cdc_flower.models import adapters, several, vlm
from cdc_flower.models.shared import Shared

LEAST, MOST = 2, 64  # samples that say who a user is, in an episode
QUESTIONS = 24  # that a user is judged by, in an episode
AT_ONCE = 64  # samples that the head's inputs are computed of


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
    pictured: frozenset[int] = frozenset()  # of the support: what came with its clip

    @property
    def seen(self) -> Seen:
        """What the cloud knows of the user."""
        some = self.user.seen.some(self.support)
        absent = [i not in self.pictured for i in self.support]
        some.features[absent] = np.nan
        return some


def drawn(user: User, rng: np.random.Generator, support: int = 0) -> Episode:
    """An episode of a user.

    Args:
        user: whose; of one with a single clip the clip is both.
        rng: draws.
        support: samples that say who it is, at most; 0 = drawn, `LEAST` to `MOST`. A clip comes with one of
            its samples at most, as from a device; of a drawn support some clips do not come at all.
    """
    clips = user.clips
    order = rng.permutation(len(clips)).tolist()
    cut = max(1, len(order) // 2)
    asked = [i for clip in order[:cut] for i in rng.permutation(clips[clip]).tolist()][:QUESTIONS]
    rest = [i for clip in order[cut:] or order for i in clips[clip]]
    most = support or int(rng.integers(LEAST, MOST + 1))
    shown = rng.permutation(rest)[:most].tolist()
    first: dict[int, int] = {}
    for i in shown:
        first.setdefault(id(user.samples[i].tokens), i)
    share = 1.0 if support else float(rng.random())
    pictured = frozenset(i for i in first.values() if rng.random() < share)
    return Episode(user, shown, asked, pictured)


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
        self.head_alone = all(adapters.HEAD in name for name, _, _ in self.parts)
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
