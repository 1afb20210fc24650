"""What the cloud keeps of the past, bounded in bytes, so that learning the new does not unlearn the old.

Two parts: the source samples the cloud kept from training the student (fixed), and a uniform sample of
everything the devices ever sent (reservoir sampling, Vitter 1985), which forgets at random when its bytes are
spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CloudSample:
    """A question about a (partly sent) picture. Tokens as decoded from the wire."""

    tokens: np.ndarray  # (K, D) float32
    positions: np.ndarray  # (K,) int64, increasing
    question_ids: list[int]


@dataclass(frozen=True)
class Lesson:
    """A sample with the teacher's answer to it: all that distillation reads."""

    sample: CloudSample
    answer_ids: list[int]  # without the end token
    top_ids: np.ndarray  # (A, k) int64, A = answer length + 1
    top_logits: np.ndarray  # (A, k) float32
    confidence: float  # geometric mean of the answer's token probabilities
    weight: float = 1.0  # of the lesson besides the confidence: less than 1 for a stale one

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and ids."""
        s = self.sample
        return (
            s.tokens.nbytes
            + s.positions.nbytes
            + 8 * (len(s.question_ids) + len(self.answer_ids))
            + self.top_ids.nbytes
            + self.top_logits.nbytes
        )


@dataclass
class Replay:
    """`source` stays; `past` is a reservoir of at most `max_bytes`."""

    source: list[Lesson]
    max_bytes: int
    past: list[Lesson] = field(default_factory=list)
    seen: int = 0
    held: int = 0  # bytes of `past`

    def add(self, lessons: list[Lesson], rng: np.random.Generator) -> None:
        """Offer lessons to the reservoir."""
        for lesson in lessons:
            self.seen += 1
            if self.held + lesson.nbytes <= self.max_bytes:
                self.past.append(lesson)
                self.held += lesson.nbytes
            elif self.past and rng.random() < len(self.past) / self.seen:
                slot = int(rng.integers(len(self.past)))
                grown = self.held - self.past[slot].nbytes + lesson.nbytes
                if grown <= self.max_bytes:
                    self.past[slot], self.held = lesson, grown

    def state(self) -> dict[str, Any]:
        """All but the source lessons, which are the same in every run of the same settings."""
        return {"seen": self.seen, "held": self.held, **_columns(self.past)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.seen, self.held, self.past = int(state["seen"]), int(state["held"]), _lessons(state)

    def draw(self, count: int, rng: np.random.Generator) -> list[Lesson]:
        """`count` lessons with replacement, source and past in equal parts while both exist."""
        pools = [p for p in (self.source, self.past) if p]
        if not pools:
            return []
        turns = [pools[i % len(pools)] for i in range(count)]
        return [pool[int(rng.integers(len(pool)))] for pool in turns]


_ROWS = ("tokens", "positions", "question_ids", "answer_ids", "top_ids", "top_logits")
"""What has several rows in a lesson: all lessons' rows one after another are one array."""


def _columns(lessons: Sequence[Lesson]) -> dict[str, Any]:
    """Lessons as a few arrays: per lesson confidence, weight and counts of rows, then all rows of a kind.

    Raises:
        ValueError: rows of a kind have different types, and one array of them would change some.
    """
    columns: dict[str, Any] = {
        "lessons": len(lessons),
        "confidence": np.array([q.confidence for q in lessons], np.float64),
        "weight": np.array([q.weight for q in lessons], np.float64),
    }
    rows = [
        (
            s.tokens,
            s.positions,
            np.array(s.question_ids, np.int64),
            np.array(q.answer_ids, np.int64),
            q.top_ids,
            q.top_logits,
        )
        for q in lessons
        for s in [q.sample]
    ]
    for name, arrays in zip(_ROWS, zip(*rows, strict=True), strict=False):
        if len({a.dtype for a in arrays}) > 1:
            raise ValueError(f"lessons of different types of {name}")
        columns[f"{name}_count"] = np.array([len(a) for a in arrays], np.int64)
        columns[name] = np.concatenate(arrays)
    return columns


def _lessons(columns: Mapping[str, Any]) -> list[Lesson]:
    """The lessons `_columns` was given; each with memory of its own, so that one can be dropped alone."""
    if not int(columns["lessons"]):
        return []
    parts = [
        [part.copy() for part in np.split(columns[name], np.cumsum(columns[f"{name}_count"])[:-1])]
        for name in _ROWS
    ]
    return [
        Lesson(CloudSample(tokens, positions, asked.tolist()), answer.tolist(), ids, logits, sure, weight)
        for tokens, positions, asked, answer, ids, logits, sure, weight in zip(
            *parts, columns["confidence"].tolist(), columns["weight"].tolist(), strict=True
        )
    ]
