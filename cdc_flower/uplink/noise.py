"""Clipped and noised tokens: what a device that wants local differential privacy sends instead of its own.

Each token is brought to a distance of at most `clip` from the mean of the tower's outputs (where the pair's
transform knows it, else from zero), and Gaussian noise of deviation `noise * clip` is added to each of its
values: the Gaussian mechanism, once a token (Dwork and Roth 2014, appendix A). Two sets of K tokens then lie
at most 2 sqrt(K) clip apart. What that is worth over a run is counted elsewhere; positions, questions and
answers go up as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noised(
    tokens: NDArray[np.float32],
    clip: float,
    noise: float,
    rng: np.random.Generator,
    mean: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Tokens (K, D) float32 as they are sent.

    Args:
        tokens: (K, D) float32.
        clip: greatest Euclidean distance of a token from `mean`; 0 = as it is, without noise.
        noise: deviation of the noise, as a multiple of `clip`; 0 = none.
        rng: nobody who is to be kept from the tokens may know its seed.
        mean: (D,) float32; None = zero.
    """
    if not clip:
        return tokens
    centre = np.float32(0) if mean is None else mean
    apart = tokens - centre
    length = np.linalg.norm(apart.astype(np.float64), axis=1, keepdims=True)
    inside = apart * (clip / np.maximum(length, clip))
    return (centre + inside + noise * clip * rng.standard_normal(tokens.shape)).astype(np.float32)
