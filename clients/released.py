"""Device work of `released`: what devices of the released CD-CCA code send (`docs/method.md`).

A sample goes up where the product of its largest probabilities, at temperature 0.1, is below what the order
says (`keys.SURE`). Of its tokens the quarter whose features vary most under dropout is set to zero, and all
go up, in 16 bits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cdc_flower.uplink.scores import dropped
from cdc_flower.wire import keys
from clients import cdc
from clients.inference import Work
from clients.task import Task

MASKED = 0.25  # of a sample's tokens


def masked(tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tokens (N, D), zero where the variance under dropout is not below its k-th smallest, k = 3 N / 4.

    Below, not at: as released, one token less than k stays.
    """
    variance = dropped(tokens.astype(np.float32), rng)
    keep = int(len(tokens) * (1 - MASKED))
    threshold = np.sort(variance)[keep - 1] if keep else -np.inf
    return tokens * (variance < threshold)[:, None]


def choose(now: cdc.Round) -> tuple[bytes, int, int]:
    """The samples that are unsure, as `cdc.whole` has them."""
    chosen = np.flatnonzero(now.answers.sharp < np.log(float(now.task.order[keys.SURE]))).tolist()
    zeroed, rng = list(now.tokens), now.task.rng("token score")
    for i in chosen:
        zeroed[i] = masked(zeroed[i], rng)
    return cdc.whole(replace(now, tokens=zeroed), chosen, -now.answers.sharp)


def work(task: Task) -> Work:
    """One round of `released` on a device."""
    return (yield from cdc.work(task, choose=choose))
