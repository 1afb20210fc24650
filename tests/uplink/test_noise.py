"""Clipped and noised tokens."""

import numpy as np

from cdc_flower.uplink.noise import noised

RNG = np.random.default_rng


def tokens(seed: int, count: int = 200, width: int = 64) -> np.ndarray:
    return RNG(seed).normal(3.0, 2.0, (count, width)).astype(np.float32)


def test_without_a_clip_tokens_go_up_as_they_are():
    given = tokens(0)
    assert noised(given, 0.0, 0.0, RNG(1)) is given


def test_no_token_is_further_from_the_mean_than_the_clip_and_near_ones_keep_their_values():
    given = tokens(0)
    mean = given.mean(0)
    far = np.linalg.norm(given - mean, axis=1)
    clip = float(np.median(far))
    sent = noised(given, clip, 0.0, RNG(1), mean)
    assert (np.linalg.norm(sent - mean, axis=1) <= clip * (1 + 1e-5)).all()
    np.testing.assert_allclose(sent[far <= clip], given[far <= clip], atol=1e-5)
    moved = (sent - mean)[far > clip] / clip
    np.testing.assert_allclose(moved, ((given - mean) / far[:, None])[far > clip], atol=1e-4)


def test_noise_has_the_deviation_it_says_and_one_seed_gives_the_same():
    given = np.zeros((400, 64), np.float32)
    sent = noised(given, 5.0, 0.3, RNG(1))
    assert abs(float(sent.std()) - 1.5) < 0.02
    assert abs(float(sent.mean())) < 0.03
    np.testing.assert_array_equal(sent, noised(given, 5.0, 0.3, RNG(1)))


def test_a_token_at_the_mean_is_no_division_by_zero():
    assert (noised(np.zeros((3, 8), np.float32), 1.0, 0.0, RNG(0)) == 0).all()
