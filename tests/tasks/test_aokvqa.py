"""A-OKVQA's two settings: values by hand, and where the official script is stricter."""

import pytest

from cdc_flower.tasks import TASKS, Truth

CHOICES = ("skateboarder", "train", "Delivery", "cab")


@pytest.mark.parametrize(("matches", "worth"), [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (10, 1)])
def test_a_direct_answer_counts_a_third_for_each_that_gave_it(matches, worth):
    references = ("train",) * matches + ("bus",) * (10 - matches)
    assert TASKS["aokvqa"].fit([])("Train.", Truth("bus", references)) == pytest.approx(worth)


def test_numbers_and_articles_are_not_normalised_in_direct_answers():
    worth = TASKS["aokvqa"].fit([])
    assert worth("2", Truth("two", ("two",) * 10)) == worth("the train", Truth("train", ("train",) * 10)) == 0


@pytest.mark.parametrize(
    ("said", "worth"),
    [("cab", 1), ("Cab.", 1), ("train", 0), ("a cab", 0), ("taxi", 0), ("", 0), ("cabs", 0)],
)
def test_a_choice_is_the_one_that_was_said_word_for_word(said, worth):
    assert TASKS["aokvqa-choice"].fit([])(said, Truth("cab", ("cab",), CHOICES)) == worth


def test_a_label_that_was_not_offered_cannot_be_chosen():
    assert TASKS["aokvqa-choice"].fit([])("taxi", Truth("taxi", ("taxi",), CHOICES)) == 0
