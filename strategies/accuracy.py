"""Held-out accuracy by domain, of the student with some adapter or of the teacher; for the experimenter's
eyes alone. What an answer is worth, and what stands beside it, the run's task says (`cdc_flower.tasks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from cdc_flower.data.rows import as_words
from cdc_flower.data.world import World
from cdc_flower.models import vlm
from cdc_flower.models.family import bare
from cdc_flower.models.room import together
from cdc_flower.models.shared import Shared
from cdc_flower.tasks import TASKS, Truths

BATCH = 128


@dataclass(frozen=True)
class Measured:
    """What the answers to the held-out items were worth.

    Attributes:
        accuracy: domain -> mean worth.
        beside: "BLEU-4 source" -> further figures of the task, by name and domain; what cannot be computed
        here is absent.
        worth: (items,) of each answer, in the order of the test items.
    """

    accuracy: dict[str, float]
    beside: dict[str, float] = field(default_factory=dict)
    worth: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def mean(cls, parts: Sequence[Measured]) -> Measured:
        """The mean of every figure over several adapters."""
        accuracy, beside = (
            {k: float(np.mean([found[k] for found in of])) for k in of[0]}
            for of in ([part.accuracy for part in parts], [part.beside for part in parts])
        )
        return cls(accuracy, beside, np.mean([part.worth for part in parts], axis=0))


def accuracy(
    model: nn.Module, shared: Shared, world: World, progress: Callable[[str, int, int], None] | None = None
) -> dict[str, float]:
    """Domain -> mean worth of the greedy answers to the test items."""
    return measure(model, shared, world, progress).accuracy


def measure(
    model: nn.Module, shared: Shared, world: World, progress: Callable[[str, int, int], None] | None = None
) -> Measured:
    """The greedy answers to the test items, judged as text by the task that judges the stream."""
    return judged(answers(model, shared, world, progress), world)


def judged(said: list[str], world: World) -> Measured:
    """What was answered to the test items, in their order, judged."""
    truths, domain = Truths(world.test), world.test["drift_domain"].to_numpy()
    worth = np.array([world.worth(text, truth) for text, truth in zip(said, truths, strict=True)], float)
    task, found, beside = TASKS[world.task], {}, {}
    for name in map(str, sorted(set(domain))):
        rows = np.flatnonzero(domain == name)
        found[name] = float(worth[rows].mean())
        for figure, of in task.beside.items():
            value = of([said[i] for i in rows], [truths[i] for i in rows])
            if value is not None:
                beside[f"{figure} {name}"] = value
    return Measured(found, beside | (by(world, task.by, worth) if task.by else {}), worth)


def by(world: World, column: str, worth: np.ndarray) -> dict[str, float]:
    """Mean worth (items,) of the test items of each value of a column."""
    parts, unit = as_words(world.test[column]).to_numpy(), TASKS[world.task].unit
    return {
        f"{unit} {column} {part}": float(worth[parts == part].mean()) for part in sorted(set(parts) - {""})
    }


def answers(
    model: nn.Module, shared: Shared, world: World, progress: Callable[[str, int, int], None] | None = None
) -> list[str]:
    """The model's greedy answers to the test items, in their order."""
    frame, said = world.test, []
    mode = model.training
    model.eval()
    asked = [shared.text.question_ids(str(q)) for q in frame["question"]]
    pictures = frame["image_row"].tolist()
    grids = [world.test_tokens.grid(i) for i in pictures]
    prompts = (len(shared.text.prefix_ids(grid)) for grid in set(grids))
    rows = together(bare(model).config, max(prompts) + max(map(len, asked)), BATCH)
    for start in range(0, len(frame), rows):
        some = slice(start, start + rows)
        tokens = [world.test_tokens[i] for i in pictures[some]]
        inputs = vlm.collate(shared.text, tokens, asked[some], grids=grids[some])
        said += vlm.answer(model, shared.text, inputs, shared.max_answer_tokens).texts
        if progress is not None:
            progress("held-out accuracy", min(start + rows, len(frame)), len(frame))
    model.train(mode)
    return said


def items(world: World) -> dict[str, int]:
    """Domain -> number of test items."""
    return {str(d): int(n) for d, n in world.test["drift_domain"].value_counts().sort_index().items()}
