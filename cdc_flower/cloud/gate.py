"""What the cloud learns of whom to ask: the weights of the gate (`cdc_flower.wire.gate`).

A sample was worth sending where the teacher answered otherwise than the device. After each round the weights
move towards what its samples said, by AdaGrad on the loss of a logistic regression: what was learned before
fades as the student learns. Sums are made in one order, so that a run has the same gates everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cdc_flower.wire import gate

PASSES, RATE, PULL = 40, 0.5, 0.3  # over a round's samples; of AdaGrad; of each weight towards zero


class Gate:
    """Weights that follow what was worth asking; zeros before anything came."""

    def __init__(self) -> None:
        self.weights = np.zeros(gate.WEIGHTS)

    def learn(self, samples: Sequence[Sequence[int]], otherwise: Sequence[bool]) -> None:
        """Learn of a round.

        Args:
            samples: features of each.
            otherwise: whether the teacher's answer was another than the device's.
        """
        if not samples:
            return
        rows = np.repeat(np.arange(len(samples)), [len(places) for places in samples])
        places, told = np.concatenate([np.asarray(p, np.int64) for p in samples]), np.array(otherwise, float)
        weights, squares = self.weights.copy(), np.full(gate.WEIGHTS, 1e-8)
        for _ in range(PASSES):
            odds = np.bincount(rows, weights[places], len(samples)).clip(-30, 30)
            gradient = np.bincount(places, (1 / (1 + np.exp(-odds)) - told)[rows], gate.WEIGHTS)
            gradient += PULL * weights
            squares += gradient**2
            weights -= RATE * gradient / np.sqrt(squares)
        self.weights = weights

    def packed(self) -> bytes:
        """As it goes down; b"" before anything was learned."""
        return gate.pack(self.weights) if self.weights.any() else b""

    def state(self) -> dict[str, Any]:
        """The weights."""
        return {"weights": self.weights}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.weights = np.array(state["weights"], np.float64)
