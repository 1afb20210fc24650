"""An answer is right when it says the same words as the label."""

from __future__ import annotations

import re


def normalise(answer: str) -> str:
    """Lower case, without outer punctuation and doubled spaces."""
    return re.sub(r"\s+", " ", answer.lower()).strip(" .,!?;:")


def exact(said: str, true: str) -> int:
    """1 where both are the same once they are normalised, else 0: "Yes." is "yes"."""
    return int(normalise(said) == normalise(true))
