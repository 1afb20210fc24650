"""The measure of scores of samples, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.bench.worth import auc, rarity


def test_auc_is_the_chance_of_the_right_order_and_half_where_all_are_equal():
    news = np.array([True, True, False, False])
    assert auc(np.array([4.0, 3.0, 2.0, 1.0]), news) == 1.0
    assert auc(np.array([4.0, 1.0, 2.0, 3.0]), news) == 0.5
    assert auc(np.zeros(4), news) == pytest.approx(0.5)
    assert np.isnan(auc(np.zeros(2), np.array([True, True])))


def test_a_far_picture_and_a_question_asked_once_are_rare():
    means = np.zeros((6, 2))
    means[5] = 9.0
    found = rarity(means, [[1]] * 6)
    assert found.argmax() == 5
    once = rarity(np.random.default_rng(0).normal(size=(6, 2)) * 1e-9 + 1, [[1]] * 5 + [[2]])
    assert once[5] > 2 * np.median(once[:5])
