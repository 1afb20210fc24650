"""Answers are judged by domain, where the labels are, by the task of the run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cdc_flower.data.prequential import prequential
from cdc_flower.tasks import TASKS, Truths

TEN = [["red"] * 10, ["two"] * 10, ["star", "sun"] * 5]
FRAME = pd.DataFrame({"answer": ["Red.", "two", "star"], "answers": TEN})


def judged(round: int, answers: list[str], task: str = "exact"):
    world = SimpleNamespace(
        domains=np.array(["source", "object", "object"], object),
        truths=Truths(FRAME),
        worth=TASKS[task].fit(Truths(FRAME)),
        streams=[[np.array([2]), np.array([0, 1, 2, 1])]],
    )
    return prequential(world, 0, round, answers)  # type: ignore[arg-type]


def test_counts_are_by_domain_and_compare_normalised_answers():
    assert judged(2, [" red", "two", "heart", "three"]) == {"source": (1, 1), "object": (1, 3)}


def test_answers_of_another_number_than_the_questions_count_nothing():
    assert judged(1, ["star"]) == {"object": (1, 1)}
    assert judged(2, ["red"]) == judged(1, []) == {}


@pytest.mark.parametrize(("task", "worth"), [("vqa", 1.0), ("aokvqa", 1.0), ("exact", 0.0)])
def test_the_task_says_which_references_count(task, worth):
    assert judged(1, ["sun"], task) == {"object": (worth, 1)}
