"""Counting what the device work here computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cdc_flower.wire.counts import Counts
from clients.task import Task


def passes(
    task: Task, tokens: Sequence[np.ndarray], asked: Sequence[list[int]], answered: Sequence[int]
) -> Counts:
    """Reading complete pictures, questions and so many answer tokens each, every sample once."""
    n, prefix = sum(map(len, tokens)), len(task.shared.text.prefix_ids())
    read = sum(prefix + len(q) + a for q, a in zip(asked, answered, strict=True))
    return Counts(len(asked), read, n, sum(a + 1 for a in answered))


def answering(
    task: Task, tokens: Sequence[np.ndarray], asked: Sequence[list[int]], ids: Sequence[list[int]]
) -> Counts:
    """Answering questions with the answers `ids`; one that was cut has no end token."""
    steps = sum(min(len(i) + 1, task.shared.max_answer_tokens) for i in ids)
    return passes(task, tokens, asked, [len(i) for i in ids]) + Counts(decoded=steps)
