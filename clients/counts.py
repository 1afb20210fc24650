"""Counting what the device work here computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from cdc_flower.data.features import Grid
from cdc_flower.wire.counts import Counts
from clients.task import Task


def passes(
    task: Task,
    tokens: Sequence[np.ndarray],
    asked: Sequence[list[int]],
    answered: Sequence[int],
    grids: Sequence[Grid] | None = None,
) -> Counts:
    """Reading complete pictures, questions and so many answer tokens each, every sample once."""
    text, n = task.shared.text, sum(map(len, tokens))
    read = sum(len(text.prefix(cast(Grid, grid or text.grid)).ids) for grid in grids or [None] * len(asked))
    read += sum(len(q) + a for q, a in zip(asked, answered, strict=True))
    return Counts(len(asked), read, n, sum(a + 1 for a in answered))


def answering(
    task: Task,
    tokens: Sequence[np.ndarray],
    asked: Sequence[list[int]],
    ids: Sequence[list[int]],
    grids: Sequence[Grid] | None = None,
) -> Counts:
    """Answering questions with the answers `ids`; one that was cut has no end token."""
    steps = sum(min(len(i) + 1, task.shared.max_answer_tokens) for i in ids)
    return passes(task, tokens, asked, [len(i) for i in ids], grids) + Counts(decoded=steps)
