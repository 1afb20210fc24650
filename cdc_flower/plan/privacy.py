"""What clipping and noise are worth: epsilon of local differential privacy, by opacus' Renyi accountant.

`uplink.noise` is the Gaussian mechanism once a token (`cdc_flower.uplink.noise`). Two pictures that take each
other's place differ in K tokens, each of which moves by at most 2 clip, so the K together move by at most
2 sqrt(K) clip where the deviation of the noise is noise * clip: one Gaussian mechanism with the noise
multiplier noise / (2 sqrt(K)). Noise is drawn once for every token of a picture, which keeps it however often
it goes up, and Gaussian mechanisms compose to a Gaussian mechanism (Mironov 2017, arXiv 1702.07476): M
different tokens of any number of samples and rounds count like M tokens of one. Nobody's data is mixed with
another's before the cloud sees it, so neither subsampling nor shuffling makes epsilon smaller. What is not
covered at all is in docs/threat-model.md: which samples go up and how many, which tokens are kept, question,
answer and uncertainty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cdc_flower.config import Config, ConfigError

_ORDERS = np.geomspace(1e-2, 1e2, 200)
"""Of Renyi divergence, less 1, in units of the best one for a large epsilon."""


@dataclass(frozen=True)
class Release:
    """Something that a device sends, taken as a unit: what differs between two neighbours.

    Attributes:
        name: what it is.
        tokens: M, how many of its tokens go up at most, over the whole run, each counted once.
        epsilon: infinite without noise.
    """

    name: str
    tokens: int
    epsilon: float


def multiplier(noise: float, tokens: int) -> float:
    """Deviation of the noise over the furthest that so many tokens can move together (replace-one)."""
    return noise / (2 * math.sqrt(tokens))


def epsilon(noise: float, tokens: int, delta: float) -> float:
    """An upper bound of epsilon at `delta` of so many clipped and noised tokens.

    Args:
        noise: the setting `uplink.noise`, a multiple of the clip.
        tokens: that differ between neighbours.
        delta: in (0, 1).

    Raises:
        ConfigError: opacus is not installed.
    """
    if not noise:
        return math.inf
    try:
        from opacus.accountants import RDPAccountant
    except ImportError:
        raise ConfigError(
            "accounting of privacy: opacus is not installed; allowed: pip install 'cdc-flower[privacy]'"
        ) from None
    accountant = RDPAccountant()
    accountant.step(noise_multiplier=multiplier(noise, tokens), sample_rate=1.0)
    best = multiplier(noise, tokens) * math.sqrt(2 * math.log(1 / delta))
    return float(accountant.get_epsilon(delta, alphas=(1 + best * _ORDERS).tolist()))


def noise_for(wanted: float, tokens: int, delta: float) -> float:
    """The least `uplink.noise`, to three digits, with which so many tokens have at most epsilon `wanted`."""
    low, high = 1e-6, 1e9
    while high / low > 1.0005:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if epsilon(middle, tokens, delta) <= wanted else (middle, high)
    return high


def releases(config: Config, picture: int, delta: float) -> list[Release]:
    """Epsilon of a token, of a picture that is asked about once or in every round, and of all that a device
    sends, at most.

    Args:
        config: of the run.
        picture: N, tokens of a picture.
        delta: in (0, 1).
    """
    kept = min(config.uplink.tokens_kept or picture, picture)
    run = config.run
    units = {
        "one token": 1,
        "a picture, sent once": kept,
        "a picture, sent in every round": min(kept * run.rounds, picture),
        "all of a device in a round": kept * run.samples_per_round,
        "all of a device in the run": kept * run.samples_per_round * run.rounds,
    }
    return [
        Release(name, tokens, epsilon(config.uplink.noise, tokens, delta)) for name, tokens in units.items()
    ]
