"""Packs of several tasks: each row is judged by the task that its column `task` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc_flower.config import ConfigError
from cdc_flower.tasks.task import Task, Truth, Worth


def by_row(tasks: Mapping[str, Task]) -> Task:
    """The task of packs whose rows name one of `tasks`; all have to count the same unit.

    Raises (when it is made fit for a split):
        ConfigError: a row names another.
    """
    allowed = {name: task for name, task in tasks.items() if task.unit == "accuracy"}

    def fit(truths: Sequence[Truth]) -> Worth:
        named = {truth.task for truth in truths}
        for name in sorted(named - set(allowed)):
            raise ConfigError(
                f"setting 'data.task' = 'by-row': column 'task' says {name!r}; allowed: {', '.join(allowed)}"
            )
        worth = {
            name: task.fit([truth for truth in truths if truth.task == name])
            for name, task in allowed.items()
        }
        return lambda said, truth: worth[truth.task](said, truth)

    return Task(fit, needs=("task",))
