"""What a device computed in a round, in counts: what that costs in FLOPs, seconds and joules is for the
server to say (`cdc_flower.fleet.cost`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from cdc_flower.wire import keys

MOST = 2**53  # of each: what is more cannot be counted exactly, and no device computes it


@dataclass(frozen=True)
class Counts:
    """Counts that add up.

    Attributes:
        passes: samples read, once for each time.
        positions: that went through the language model: prompt, vision tokens, question, answer.
        vision: vision tokens that went through the projector.
        predicted: positions that `lm_head` read.
        trained: positions that gradients went back through; twice where all weights have gradients.
        decoded: answer tokens generated, one step each, end tokens included.
    """

    passes: int = 0
    positions: int = 0
    vision: int = 0
    predicted: int = 0
    trained: int = 0
    decoded: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> Counts:
        return Counts(*(times * a for a in astuple(self)))

    def metrics(self) -> dict[str, Any]:
        """For a reply: one list, in the order of the attributes."""
        return {keys.COUNTS: list(astuple(self))}

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Counts:
        """What a reply says that has its form."""
        return cls(*metrics[keys.COUNTS])
