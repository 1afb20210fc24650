"""What a device computed in a round, in counts: what that costs in FLOPs, seconds and joules is for the
server to say (`cdc_flower.fleet.cost`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import add
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
        return Counts(*map(add, self._each, other._each))

    def __mul__(self, times: int) -> Counts:
        return Counts(*(times * a for a in self._each))

    @property
    def _each(self) -> tuple[int, ...]:
        return tuple(vars(self).values())  # in the order of the attributes

    def metrics(self) -> dict[str, Any]:
        """For a reply: one list, in the order of the attributes."""
        return {keys.COUNTS: list(self._each)}

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Counts:
        """What a reply says that has its form."""
        return cls(*metrics[keys.COUNTS])
