"""The attacker's decoder learns what tokens say, and nothing of tokens that did not come."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.probes import decoder
from experiments.probes.sent import Received


@pytest.fixture(scope="module")
def pictures() -> tuple[Received, np.ndarray]:
    """Pictures of 2 x 2 patches of one grey each, which is the first value of its token."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (64, 4))
    pixels = grey.reshape(-1, 2, 1, 2, 1).repeat(4, 2).repeat(4, 4).reshape(-1, 8, 8, 1).repeat(3, 3)
    tokens = np.stack([grey / 255, rng.random((64, 4)), rng.random((64, 4))], -1).astype(np.float32)
    return Received(tokens, np.ones((64, 4), bool), 0.0), pixels.astype(np.uint8)


def test_a_decoder_learns_and_the_same_seed_learns_the_same(pictures):
    got, pixels = pictures
    learned = []
    for _ in range(2):
        network = decoder.fresh(got, 2, 4, seed=1)
        before = decoder.errors(decoder.drawn(network, got), pixels).mean()
        decoder.train(network, got, pixels, 60, seed=1)
        learned.append(decoder.drawn(network, got))
    assert decoder.errors(learned[0], pixels).mean() < 0.2 * before
    np.testing.assert_array_equal(*learned)


def test_a_token_that_did_not_come_tells_nothing(pictures):
    got, _ = pictures
    network = decoder.fresh(got, 2, 4, seed=1)
    there = got.there.copy()
    there[:, 1] = False
    other = got.tokens.copy()
    other[:, 1] = 99.0
    some = [decoder.drawn(network, Received(t, there, 0.0)) for t in (got.tokens, other)]
    np.testing.assert_array_equal(*some)


def test_figures_of_likeness_agree_with_their_formulas():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (2, 9, 9, 3), np.uint8)
    other = np.clip(real.astype(int) + 10, 0, 255).astype(np.uint8)
    square = ((real / 255 - other / 255) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(decoder.errors(other, real), square, rtol=1e-5)
    assert decoder.psnr(other, real) == pytest.approx(np.mean(-10 * np.log10(square)), rel=1e-5)
    x, y = real[:1, :7, :7, :1] / 255, other[:1, :7, :7, :1] / 255
    both = np.cov(x.ravel(), y.ravel())
    c1, c2 = 0.01**2, 0.03**2
    plain = (2 * x.mean() * y.mean() + c1) * (2 * both[0, 1] + c2)
    plain /= (x.mean() ** 2 + y.mean() ** 2 + c1) * (both[0, 0] + both[1, 1] + c2)
    assert decoder.ssim(other[:1, :7, :7, :1], real[:1, :7, :7, :1]) == pytest.approx(plain)
    assert decoder.as_tensor(real).dtype == torch.float32
