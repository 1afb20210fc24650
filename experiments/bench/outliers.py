"""Outlying channels and few bits: `python -m experiments.bench.outliers` prints the table of docs/method.md.

Tokens are drawn: Gaussian channels, correlated as those of a tower (the deviations of their axes fall as
k^-0.6), of which one in a hundred is 10 to 30 deviations away: its mean, its own deviation, or its value in
one token of twenty. The transform is estimated from other tokens than it is measured on.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from cdc_flower.models import transform
from cdc_flower.models.transform import Transform
from cdc_flower.uplink import token_batch

WIDTH, TOKENS = 512, 4096
KINDS = ("mean", "deviation", "some tokens")


def draw(kind: str, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Tokens (4096, 512), and which channels are outlying: the same for every seed."""
    fixed, rng = np.random.default_rng(99), np.random.default_rng([seed, KINDS.index(kind)])
    mix = fixed.standard_normal((WIDTH, WIDTH)) * np.arange(1, WIDTH + 1)[:, None] ** -0.6
    tokens = rng.standard_normal((TOKENS, WIDTH)) @ (mix / np.sqrt((mix**2).sum(axis=0)))
    far = fixed.choice(WIDTH, WIDTH // 100, replace=False)
    size = fixed.uniform(10, 30, len(far))
    if kind == "mean":
        tokens[:, far] += size
    elif kind == "deviation":
        tokens[:, far] *= size
    else:
        tokens[np.ix_(rng.random(TOKENS) < 0.05, far)] += size
    return tokens.astype(np.float32), far


def errors(kind: str, bits: int) -> tuple[float, float, float]:
    """Relative error of the other channels: tokens as they are, with a scale a channel, transformed."""
    (known, far), (tokens, _) = draw(kind, 0), draw(kind, 1)
    others = np.setdiff1d(np.arange(WIDTH), far)
    whole = transform.estimate([known])
    each = Transform(known.mean(axis=0), np.eye(WIDTH, dtype=np.float32), whole.variance, known.std(axis=0))
    found = []
    for turn in (None, each, whole):
        back = token_batch.quantized(tokens, bits, turn)
        found.append(np.linalg.norm((back - tokens)[:, others]) / np.linalg.norm(tokens[:, others]))
    return found[0], found[1], found[2]


def main() -> None:
    """Print the table."""
    rows = ["| outlying | bits | as they are | a scale a channel | transform |", "|---|---|---|---|---|"]
    for kind in KINDS:
        for bits in (2, 3, 4):
            rows.append(f"| {kind} | {bits} | " + " | ".join(f"{e:.3f}" for e in errors(kind, bits)) + " |")
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
