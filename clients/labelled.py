"""Device work of `labelled`: as `cdc`, but a sample that goes up carries its true answer, not the device's.

The same rule chooses the samples, and the frame is the same: its bytes differ by what the answers take alone.
"""

from __future__ import annotations

import numpy as np

from clients import cdc
from clients.inference import Work
from clients.task import Task


def work(task: Task) -> Work:
    """One round of `labelled` on a device.

    Raises:
        PermissionError: the message does not say that devices learn from labels.
    """

    def label(items: np.ndarray) -> list[list[int]]:
        return [ids[: task.shared.max_answer_tokens] for ids in task.labels(items)]

    return (yield from cdc.work(task, label))
