"""Accounting agrees with the closed form of the Gaussian mechanism, from above, and composes as it must."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from scipy import optimize
from scipy.stats import norm

from cdc_flower.config import ConfigError, flat, parse
from cdc_flower.plan.privacy import epsilon, multiplier, noise_for, releases
from cdc_flower.uplink.noise import noised

DELTA = 1e-5


def exact(mu: float, delta: float) -> float:
    """Of one release that neighbours move by `mu` deviations: Balle and Wang 2018, arXiv 1805.06530."""

    def beyond(e: float) -> float:
        near, far = norm.logcdf(mu / 2 - e / mu), e + norm.logcdf(-mu / 2 - e / mu)
        return near + np.log1p(-np.exp(far - near)) - math.log(delta)

    return float(optimize.root_scalar(beyond, bracket=(1e-9, mu**2 + 40 * mu + 10)).root)


@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0, 20.0])
def test_one_token_costs_what_the_closed_form_says_from_above(noise):
    right = exact(2 / noise, DELTA)
    assert right <= epsilon(noise, 1, DELTA) <= 1.15 * right


@pytest.mark.parametrize("tokens", [6, 40, 40 * 32 * 14])
def test_tokens_compose_to_one_mechanism_that_moves_by_the_root_of_their_number(tokens):
    right = exact(2 * math.sqrt(tokens) / 1.5, DELTA)
    assert right <= epsilon(1.5, tokens, DELTA) <= 1.1 * right
    assert epsilon(1.5, 4 * tokens, DELTA) == pytest.approx(epsilon(0.75, tokens, DELTA))


def test_no_two_clipped_pictures_lie_further_apart_than_is_counted():
    rng, clip, tokens = np.random.default_rng(0), 3.0, 40
    pictures = [noised(rng.normal(0, 9, (tokens, 8)).astype(np.float32), clip, 0.0, rng) for _ in range(50)]
    pictures += [np.eye(8, dtype=np.float32)[[0] * tokens] * way * clip for way in (1, -1)]
    furthest = max(float(np.linalg.norm(a - b)) for a in pictures for b in pictures)
    assert furthest == pytest.approx(1 / multiplier(1 / clip, tokens), rel=1e-5)  # the noise's deviation is 1


def test_without_noise_nothing_is_promised_and_nothing_has_to_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    assert epsilon(0.0, 40, DELTA) == math.inf
    with pytest.raises(ConfigError, match=r"cdc-flower\[privacy\]"):
        epsilon(1.0, 40, DELTA)


def test_the_noise_that_an_epsilon_takes_gives_it():
    noise = noise_for(8.0, 40, DELTA)
    assert epsilon(noise, 40, DELTA) <= 8.0 < epsilon(0.998 * noise, 40, DELTA)


def test_what_a_device_sends_is_counted_by_its_settings(config):
    more = {"uplink.clip": 2.0, "uplink.noise": 1.0, "uplink.tokens-kept": 10, "run.rounds": 5}
    own = parse({**flat(config), **more, "run.samples-per-round": 3})
    found = {one.name: one.tokens for one in releases(own, 64, DELTA)}
    assert list(found.values()) == [1, 10, 50, 30, 150]
    every = parse({**flat(own), "uplink.tokens-kept": 0})
    assert [one.tokens for one in releases(every, 64, DELTA)][1:3] == [64, 64]  # a token counts once
