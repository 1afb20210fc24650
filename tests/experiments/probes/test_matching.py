"""Pictures are told apart by what came of them, as often as their distances say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cdc_flower.stages import UplinkConfig
from experiments.probes.matching import auc, distances, found_first, membership
from experiments.probes.sent import Received

PLAIN: Any = SimpleNamespace(transform=None)


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    assert auc(inside, outside) == pytest.approx(np.mean(pairs))


def test_distances_are_of_the_places_that_came_and_the_own_picture_is_nearest():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(20, 5, 4)).astype(np.float32)
    there = rng.random((6, 5)) < 0.6
    there[:, 0] = True
    got = Received(np.where(there[..., None], tokens[:6], 99), there, 0.0)
    apart = distances(got, tokens, UplinkConfig(), PLAIN)
    plain = ((tokens[7][there[2]] - tokens[2][there[2]]) ** 2).mean()
    assert apart[2, 7] == pytest.approx(plain, rel=1e-5)
    assert (found_first(apart), membership(apart)) == (1.0, 1.0)


def test_the_attacker_clips_as_devices_do():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(8, 5, 4)).astype(np.float32)
    short = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    got = Received(0.1 * short[:3], np.ones((3, 5), bool), 0.0)
    apart = distances(got, tokens, replace(UplinkConfig(), clip=0.1), PLAIN)
    np.testing.assert_allclose(np.diag(apart), 0, atol=1e-12)


def test_of_noise_alone_members_are_told_by_chance():
    rng = np.random.default_rng(0)
    assert abs(membership(rng.random((64, 400))) - 0.5) < 0.1
