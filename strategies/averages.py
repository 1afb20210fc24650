"""How the weights of a round's devices become one: Flower's rules by name, and how far one device may go.

The plain mean has no defence: one device of n moves it by 1/n of whatever it sends. The others are rules of
Flower's own robust strategies, which are asked to aggregate and for nothing else: the median and the trimmed
mean of each weight (arXiv 1803.01498), Krum and multi-Krum (arXiv 1703.02757), which take the answers with
the nearest neighbours, and Bulyan (after arXiv 1802.07927), a trimmed mean of such: Flower's takes the best
by one score, where the paper scores what is left again after each choice. They are given the changes that
devices made and not their weights, whose distances would vanish in the rounding of float32.

A robust rule is a choice; that one device goes no further than training could is not: see `furthest`. It
takes the place of the clipping of norms (arXiv 1911.07963), whose threshold has to be guessed and clips
honest devices when it is guessed too low.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.serverapp.strategy import Bulyan, FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum

BETA1, BETA2 = 0.9, 0.999  # of AdamW, as the device work has it
_SLACK = 1 + 1e-3  # for sums in float32
_MANY = 50_000  # steps after which the bound of one no longer changes


@dataclass(frozen=True)
class Average:
    """A rule.

    Attributes:
        make: devices assumed hostile, answers -> the strategy of Flower's that aggregates.
        least: answers that it takes where no device is hostile.
        each: further answers for every hostile device.
        of_changes: it is given changes, not weights.
    """

    make: Callable[[int, int], FedAvg]
    least: int
    each: int
    of_changes: bool = True

    def needs(self, hostile: int) -> int:
        """Answers that a round needs."""
        return self.least + self.each * hostile


def _trimmed(hostile: int, answers: int) -> FedAvg:
    """As many as are hostile go at both ends; the quarter keeps the share from being rounded down."""
    return FedTrimmedAvg(beta=(hostile + 0.25) / answers if hostile else 0.0)


AVERAGES: dict[str, Average] = {
    "mean": Average(lambda hostile, answers: FedAvg(), 1, 0, of_changes=False),
    "median": Average(lambda hostile, answers: FedMedian(), 1, 2),
    "trimmed-mean": Average(_trimmed, 1, 2),
    "krum": Average(lambda hostile, answers: Krum(num_malicious_nodes=hostile), 3, 2),
    "multi-krum": Average(
        lambda hostile, answers: MultiKrum(
            num_malicious_nodes=hostile, num_nodes_to_select=answers - hostile
        ),
        3,
        2,
    ),
    "bulyan": Average(lambda hostile, answers: Bulyan(num_malicious_nodes=hostile), 3, 4),
}
"""Values of the setting `fedavg.average`."""


def furthest(steps: int, lr: float) -> float:
    """How far so many steps of AdamW from a fresh state can move a weight at most, whatever the gradients.

    With m and v the running means of gradients and of their squares, Cauchy and Schwarz give for step t

        |m_t| / sqrt(v_t) <= (1 - b1) / sqrt(1 - b2) * sqrt((1 - r^t) / (1 - r)),  r = b1^2 / b2,

    and with both bias corrections a first step of at most lr and steps of at most 7.3 lr after thousands. No
    weight decay is assumed.
    """
    t = np.arange(1, min(steps, _MANY) + 1, dtype=np.float64)
    r = BETA1**2 / BETA2
    ratio = (1 - BETA1) / np.sqrt(1 - BETA2) * np.sqrt((1 - r**t) / (1 - r))
    each = ratio * np.sqrt(1 - BETA2**t) / (1 - BETA1**t)
    later = max(0, steps - _MANY) * float(each[-1]) if steps else 0.0
    return lr * (float(np.sum(each)) + later) * _SLACK


def beyond(flat: np.ndarray, start: np.ndarray, most: float) -> int:
    """How many weights (P,) float16 are further than `most` from where they began, rounding aside."""
    rounding = np.abs(flat.astype(np.float32)) * 2.0**-10 + 2.0**-24
    return int((np.abs(flat.astype(np.float32) - start.astype(np.float32)) > most + rounding).sum())
