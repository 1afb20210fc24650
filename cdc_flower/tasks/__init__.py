"""What an answer is worth, by task; used where answers are counted: on the stream and on held-out items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdc_flower.tasks.aokvqa import CHOICE, DIRECT
from cdc_flower.tasks.by_row import by_row
from cdc_flower.tasks.captions import CAPTIONS
from cdc_flower.tasks.exact import EXACT
from cdc_flower.tasks.task import Task, Truth, Truths, Worth
from cdc_flower.tasks.vqa import VQA

TASKS: dict[str, Task] = {
    "exact": EXACT,
    "vqa": VQA,
    "aokvqa": DIRECT,
    "aokvqa-choice": CHOICE,
    "captions": CAPTIONS,
}
"""Name -> how answers are judged."""
TASKS["by-row"] = by_row(TASKS)


def task_of(config: Mapping[str, Any]) -> Task:
    """The task of a run, from its flat config."""
    return TASKS[str(config.get("data.task", "exact"))]


__all__ = ["TASKS", "Task", "Truth", "Truths", "Worth", "task_of"]
