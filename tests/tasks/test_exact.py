"""Exact: the words count, not how they are written."""

import pytest

from cdc_flower.tasks import TASKS, Truth

WORTH = TASKS["exact"].fit([])


@pytest.mark.parametrize(
    ("said", "true", "worth"),
    [("Yes", "yes", 1), (" Red.", "red", 1), ("two  dogs", "Two dogs", 1), ("", "yes", 0), ("12", "1 2", 0)],
)
def test_an_answer_is_right_when_it_says_the_same_words(said, true, worth):
    assert WORTH(said, Truth(true, (true,))) == worth


def test_other_references_than_the_label_do_not_count():
    assert WORTH("crimson", Truth("red", ("red", "crimson"))) == 0
