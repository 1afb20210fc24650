"""Device work of `spa`: answer the stream, then train side parameters on true labels, and no base."""

from __future__ import annotations

from clients.fedavg import check
from clients.inference import Work
from clients.portions import tuned
from clients.task import Task


def work(task: Task) -> Work:
    """One round on a device."""
    check(task.order)
    return tuned(task, "head", 0)
