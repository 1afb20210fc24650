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

    @property
    def ended(self) -> bool:
        """Whether the teacher ended its answer; one that was cut is taught without an end."""
        return len(self.top_ids) > len(self.answer_ids)

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
        """All but the source samples, which are the same in every run of the same settings."""
        return {"seen": self.seen, "held": self.held, **_columns(self.past)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.seen, self.held, self.past = int(state["seen"]), int(state["held"]), _labelled(state)

    def draw(self, count: int, rng: np.random.Generator) -> list[PseudoLabelled]:
        """`count` samples with replacement, source and past in equal parts while both exist."""
        pools = [p for p in (self.source, self.past) if p]
        if not pools:
            return []
        turns = [pools[i % len(pools)] for i in range(count)]
        return [pool[int(rng.integers(len(pool)))] for pool in turns]


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
