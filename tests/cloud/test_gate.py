"""What the cloud learns of whom to ask, where the truth is planted."""

from __future__ import annotations

import numpy as np

from cdc_flower.cloud.gate import Gate
from cdc_flower.wire import gate

NEW, KNOWN = 7, 8  # kinds of question


def round_of(news: int, rng: np.random.Generator, n: int = 200):
    """Samples of two kinds of question, of which one is news; the student is as sure of both."""
    kinds = rng.choice([NEW, KNOWN], n)
    samples = [gate.features([1, int(k), int(rng.integers(20, 40))], [3], 0.01) for k in kinds]
    return kinds, samples, (kinds == news).tolist()


def test_it_learns_in_one_round_which_kind_of_question_is_news():
    rng, learned = np.random.default_rng(0), Gate()
    assert learned.packed() == b""
    _, samples, news = round_of(NEW, rng)
    learned.learn(samples, news)
    kinds, samples, _ = round_of(NEW, rng)
    chance = gate.chance(gate.unpack(learned.packed()), samples)
    assert chance[kinds == NEW].min() > 0.7 > 0.3 > chance[kinds == KNOWN].max()


def test_what_was_news_fades_when_the_student_has_learned_it():
    rng, learned = np.random.default_rng(0), Gate()
    for news in (NEW, NEW, 0, 0, 0):
        _, samples, told = round_of(news, rng)
        learned.learn(samples, told)
    _, samples, _ = round_of(NEW, rng)
    assert gate.chance(learned.weights, samples).max() < 0.3


def test_a_fresh_gate_goes_on_from_a_saved_one_bit_for_bit():
    rng, first, second = np.random.default_rng(0), Gate(), Gate()
    rounds = [round_of(NEW, rng)[1:] for _ in range(3)]
    first.learn(*rounds[0])
    second.load(first.state())
    for samples, told in rounds[1:]:
        first.learn(samples, told)
        second.learn(samples, told)
    assert first.packed() == second.packed() != b""


def test_a_round_without_samples_changes_nothing():
    learned = Gate()
    learned.learn([], [])
    assert learned.packed() == b""
