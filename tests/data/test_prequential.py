"""Answers are judged by domain, where the labels are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from cdc_flower.data.prequential import prequential
from cdc_flower.tasks import TASKS

WORLD = SimpleNamespace(
    domains=np.array(["source", "object", "object"], object),
    answers=np.array(["Red.", "two", "star"], object),
    streams=[[np.array([2]), np.array([0, 1, 2, 1])]],
)


def judged(round: int, answers: list[str]):
    return prequential(TASKS["exact"], WORLD, 0, round, answers)


def test_counts_are_by_domain_and_compare_normalised_answers():
    assert judged(2, [" red", "two", "heart", "three"]) == {"source": (1, 1), "object": (1, 3)}


def test_answers_of_another_number_than_the_questions_count_nothing():
    assert judged(1, ["star"]) == {"object": (1, 1)}
    assert judged(2, ["red"]) == judged(1, []) == {}
