"""An answer is right when it says the same words as the label."""

from __future__ import annotations

import re

from cdc_flower.tasks.task import SHORT, Task, Truth, always


def normalise(answer: str) -> str:
    """Lower case, without outer punctuation and doubled spaces."""
    return re.sub(r"\s+", " ", answer.lower()).strip(" .,!?;:")


def exact(said: str, truth: Truth) -> float:
    """1 where both are the same once they are normalised, else 0: "Yes." is "yes"."""
    return float(normalise(said) == normalise(truth.answer))


EXACT = Task(always(exact), ask=SHORT)
