"""Which picture it was: received tokens set against those that an attacker computes of pictures he has.

No network and no training: the tower is in the student's checkpoint, and tokens say which of the picture's
patches they are.
"""

from __future__ import annotations

import numpy as np

from cdc_flower.models.shared import Shared
from cdc_flower.stages import UplinkConfig
from cdc_flower.uplink.noise import noised
from experiments.probes.sent import BATCH, Received


def distances(got: Received, candidates: np.ndarray, up: UplinkConfig, shared: Shared) -> np.ndarray:
    """(B, C) mean squared distance of what came of each picture from each candidate's tokens in its places.

    Args:
        got: of B pictures.
        candidates: (C, N, D) tokens; the first B are of the very pictures.
        up: the settings of the upload. The attacker clips as devices do.
        shared: of the pair.
    """
    mean, free = None if shared.transform is None else shared.transform.mean, np.random.default_rng(0)
    flat = noised(candidates.reshape(-1, candidates.shape[-1]), up.clip, 0.0, free, mean)
    tokens = flat.reshape(candidates.shape)
    found = np.empty((len(got.tokens), len(tokens)))
    for i, (came, there) in enumerate(zip(got.tokens, got.there, strict=True)):
        found[i] = np.square(tokens[:, there] - came[there]).mean((1, 2))
    return found


def found_first(apart: np.ndarray) -> float:
    """Share of pictures whose own tokens are the nearest of all candidates'; chance is 1 / C."""
    return float((apart.argmin(1) == np.arange(len(apart))).mean())


def membership(apart: np.ndarray) -> float:
    """AUC of telling whether a picture is one of those in a frame, by its distance from the nearest sample.

    Members are the B pictures, in frames of `BATCH`; the other candidates are in none. 0.5 is chance.
    """
    inside, outside = [], []
    for start in range(0, len(apart), BATCH):
        some = apart[start : start + BATCH]
        nearest = -some.min(0)
        inside.append(nearest[start : start + len(some)])
        outside.append(nearest[len(apart) :])
    return auc(np.concatenate(inside), np.concatenate(outside))


def auc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Chance that one of `inside` (M,) is above one of `outside` (K,); ties count a half."""
    order = np.sort(outside)
    below = np.searchsorted(order, inside, "left") + np.searchsorted(order, inside, "right")
    return float(below.mean() / 2 / len(order))
