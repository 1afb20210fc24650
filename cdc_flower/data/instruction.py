"""What is said behind a question: how to answer it.

A bare checkpoint was never trained on the data, and is told the form of an answer in a line of its own; a
pair that was trained on the bare questions is not. Rows of a pack and questions of a real device get the very
same text. No pandas here: a device reads this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cdc_flower.stages import DataConfig
from cdc_flower.tasks import TASKS

BY_ROW = "by-row"  # the task whose instruction each row has of its own


def told_by_card(data: DataConfig, card: Mapping[str, Any]) -> DataConfig:
    """The settings of a run: `known_*` from the pair's card where none is set, and no instruction for a pair
    that has a card: it was trained on the bare questions.
    """
    if card and data.instruction == "auto":
        data = replace(data, instruction="none")
    known = card.get("known", {})
    if data.known_styles or data.known_objects or data.known_questions or not known:
        return data
    return replace(data, **known)


def said(data: DataConfig, task: str = "") -> str:
    """The instruction of a question; "" = none.

    Args:
        data: as `told_by_card` gives it.
        task: of the row, where rows have their own.
    """
    if data.instruction == "auto":
        return TASKS[task or data.task].ask
    return "" if data.instruction == "none" else data.instruction


def asked(question: str, instruction: str) -> str:
    """A question with its instruction, in a line of its own."""
    return f"{question}\n{instruction}".rstrip("\n")
