"""What the cloud keeps of the past, bounded in bytes, so that learning the new does not unlearn the old.

Two parts: the source samples the cloud kept from training the student (fixed), and a uniform sample of
everything the devices ever sent (reservoir sampling, Vitter 1985), which forgets at random when its bytes are
spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CloudSample:
    """A question about a (partly sent) picture. Tokens as decoded from the wire."""

    tokens: np.ndarray  # (K, D) float32; what is not kept, of any float type
    positions: np.ndarray  # (K,) int64, increasing
    question_ids: list[int]
    grid: tuple[int, int, int]  # of the whole picture: tokens, rows, columns
    teacher: CloudSample | None = None  # the same, as a teacher reads it that differs; not kept
    label: tuple[int, ...] | None = None  # the true answer in the student's ids, where it came; not kept

    @property
    def whole(self) -> bool:
        """Whether all tokens of the picture are here."""
        return len(self.positions) == self.grid[0]


@dataclass(frozen=True)
class PseudoLabelled:
    """A sample with the teacher's answer to it: all that distillation reads."""

    sample: CloudSample
    answer_ids: list[int]  # without the end token
    top_ids: np.ndarray  # (A, k) int64, A = steps that are taught: of the answer, and of its end
    top_logits: np.ndarray  # (A, k) float32
    confidence: float  # geometric mean of the answer's token probabilities
    weight: float = 1.0  # of the sample besides the confidence: less than 1 for a stale one
    more: tuple[PseudoLabelled, ...] = ()  # further questions about the same picture; these have none

    def some(self, most: int, rng: np.random.Generator) -> list[PseudoLabelled]:
        """Up to `most` of the questions about this picture, at random."""
        every = [self, *self.more]
        if len(every) <= most:
            return every
        return [every[int(i)] for i in rng.permutation(len(every))[:most]]

    @property
    def ended(self) -> bool:
        """Whether the teacher ended its answer; one that was cut is taught without an end."""
        return len(self.top_ids) > len(self.answer_ids)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and ids."""
        s = self.sample
        lessons = (
            8 * (len(q.sample.question_ids) + len(q.answer_ids)) + q.top_ids.nbytes + q.top_logits.nbytes
            for q in (self, *self.more)
        )
        return s.tokens.nbytes + s.positions.nbytes + sum(lessons)


@dataclass
class Replay:
    """`source` stays; `past` is a reservoir of at most `max_bytes`."""

    source: list[PseudoLabelled]
    max_bytes: int
    past: list[PseudoLabelled] = field(default_factory=list)
    seen: int = 0
    held: int = 0  # bytes of `past`

    def add(self, labelled: list[PseudoLabelled], rng: np.random.Generator) -> None:
        """Offer samples to the reservoir."""
        for one in labelled:
            self.seen += 1
            if self.held + one.nbytes <= self.max_bytes:
                self.past.append(one)
                self.held += one.nbytes
            elif self.past and rng.random() < len(self.past) / self.seen:
                slot = int(rng.integers(len(self.past)))
                grown = self.held - self.past[slot].nbytes + one.nbytes
                if grown <= self.max_bytes:
                    self.past[slot], self.held = one, grown

    def state(self) -> dict[str, Any]:
        """All but the source samples, which are the same in every run of the same settings; of those what
        they were asked since.
        """
        more = [(i, q) for i, one in enumerate(self.source) for q in one.more]
        further = {
            "source_asked": np.array([i for i, _ in more], np.int64),
            **{f"source_{k}": v for k, v in _columns([_bare(q) for _, q in more]).items()},
        }
        return {"seen": self.seen, "held": self.held, **_with_more(self.past), **further}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.seen, self.held, self.past = int(state["seen"]), int(state["held"]), _and_more(state)
        own = {k.removeprefix("source_"): v for k, v in state.items() if k.startswith("source_")}
        more: dict[int, list[PseudoLabelled]] = {}
        for i, q in zip(own["asked"].tolist(), _labelled(own), strict=True):
            more.setdefault(i, []).append(q)
        self.source = [with_further(one, more.get(i, ())) for i, one in enumerate(self.source)]

    def draw(self, count: int, rng: np.random.Generator) -> list[PseudoLabelled]:
        """`count` samples with replacement, source and past in equal parts while both exist."""
        pools = [p for p in (self.source, self.past) if p]
        if not pools:
            return []
        turns = [pools[i % len(pools)] for i in range(count)]
        return [pool[int(rng.integers(len(pool)))] for pool in turns]


def _bare(one: PseudoLabelled) -> PseudoLabelled:
    """A lesson without its picture, which is kept elsewhere."""
    sample = one.sample
    return replace(one, sample=replace(sample, tokens=sample.tokens[:0], positions=sample.positions[:0]))


def with_further(one: PseudoLabelled, more: Sequence[PseudoLabelled]) -> PseudoLabelled:
    """A lesson and further ones, which get its picture: the same arrays, by which lessons of one are told."""
    of = {"tokens": one.sample.tokens, "positions": one.sample.positions}
    return replace(one, more=tuple(replace(q, sample=replace(q.sample, **of)) for q in more))


def _with_more(labelled: Sequence[PseudoLabelled]) -> dict[str, Any]:
    """As `_columns`; behind each sample are its further questions, and `more` says how many."""
    every = [q for one in labelled for q in (one, *map(_bare, one.more))]
    return {**_columns(every), "more": np.array([len(one.more) for one in labelled], np.int64)}


def _and_more(columns: Mapping[str, Any]) -> list[PseudoLabelled]:
    """The samples `_with_more` was given."""
    every = iter(_labelled(columns))
    return [with_further(next(every), list(islice(every, more))) for more in columns["more"].tolist()]


_ROWS = ("tokens", "positions", "question_ids", "answer_ids", "top_ids", "top_logits", "grid")
"""What has several rows in a sample: all samples' rows one after another are one array."""


def _columns(labelled: Sequence[PseudoLabelled]) -> dict[str, Any]:
    """Samples as a few arrays: of each confidence, weight and counts of rows, then all rows of a kind.

    Raises:
        ValueError: rows of a kind have different types, and one array of them would change some.
    """
    columns: dict[str, Any] = {
        "samples": len(labelled),
        "confidence": np.array([q.confidence for q in labelled], np.float64),
        "weight": np.array([q.weight for q in labelled], np.float64),
    }
    rows = [
        (
            s.tokens,
            s.positions,
            np.array(s.question_ids, np.int64),
            np.array(q.answer_ids, np.int64),
            q.top_ids,
            q.top_logits,
            np.array(s.grid, np.int64),
        )
        for q in labelled
        for s in [q.sample]
    ]
    for name, arrays in zip(_ROWS, zip(*rows, strict=True), strict=False):
        if len({a.dtype for a in arrays}) > 1:
            raise ValueError(f"samples of different types of {name}")
        columns[f"{name}_count"] = np.array([len(a) for a in arrays], np.int64)
        columns[name] = np.concatenate(arrays)
    return columns


def _labelled(columns: Mapping[str, Any]) -> list[PseudoLabelled]:
    """The samples `_columns` was given; each with memory of its own, so that one can be dropped alone."""
    if not int(columns["samples"]):
        return []
    parts = [
        [part.copy() for part in np.split(columns[name], np.cumsum(columns[f"{name}_count"])[:-1])]
        for name in _ROWS
    ]
    return [
        PseudoLabelled(
            CloudSample(tokens, positions, asked.tolist(), tuple(grid.tolist())),
            answer.tolist(),
            ids,
            logits,
            sure,
            weight,
        )
        for tokens, positions, asked, answer, ids, logits, grid, sure, weight in zip(
            *parts, columns["confidence"].tolist(), columns["weight"].tolist(), strict=True
        )
    ]
