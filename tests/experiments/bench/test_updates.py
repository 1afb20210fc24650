"""The limits of an update are true, and its parts add up."""

import math

import numpy as np
import pytest

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from experiments.bench import updates


@pytest.mark.parametrize(("n", "k"), [(10, 3), (1000, 1), (5000, 700), (20, 20)])
def test_the_positions_limit_is_the_number_of_choices(n, k):
    assert updates.choose_bits(n, k) == pytest.approx(math.log2(math.comb(n, k)), abs=1e-6)


def test_the_entropy_of_a_fair_coin_is_a_bit_a_throw():
    assert updates.entropy_bits(np.array([0, 1] * 50)) == pytest.approx(100)


@pytest.mark.parametrize("kind", updates.DISTRIBUTIONS)
def test_an_update_taken_apart_adds_up_and_stays_near_its_limits(kind):
    sizes = updates.even(20_000, 7)
    payload = CODECS["dyadic"].encode(updates.draw(kind, sizes), sizes, 2000)
    parts = updates.take_apart(payload, sizes)
    assert parts.frame == len(payload) + update.ENVELOPE
    coded = parts.positions + parts.values
    assert coded <= parts.frame - parts.envelope <= coded + 4 + 8 + 2  # words counted, rounded up, signs
    assert parts.positions / parts.positions_limit < 1.01  # below 1 where tensors of a class differ
    assert parts.whole < 1.03
    assert parts.envelope <= 64 + 16 * len(sizes)


def test_updates_are_drawn_from_their_seed():
    assert np.array_equal(updates.draw("layers", [50, 50]), updates.draw("layers", [50, 50]))
    assert not np.array_equal(updates.draw("layers", [50, 50]), updates.draw("layers", [50, 50], seed=1))
