"""Who is told how to answer, and in which words."""

import pytest

from cdc_flower.config import parse
from cdc_flower.data.instruction import asked, said, told_by_card
from cdc_flower.tasks import TASKS


@pytest.mark.parametrize(
    ("settings", "task", "words"),
    [
        ({"data.task": "vqa"}, "", TASKS["vqa"].ask),
        ({"data.task": "by-row"}, "vqa", TASKS["vqa"].ask),
        ({"data.task": "vqa", "data.instruction": "none"}, "", ""),
        ({"data.task": "vqa", "data.instruction": "In a word."}, "", "In a word."),
    ],
)
def test_words_are_the_task_s_unless_the_settings_have_others(settings, task, words):
    assert said(parse(settings).data, task) == words


def test_a_pair_that_was_trained_on_the_bare_questions_is_told_nothing():
    data = parse({"data.task": "vqa"}).data
    assert said(told_by_card(data, {"known": {}})) == ""
    assert said(told_by_card(data, {})) == TASKS["vqa"].ask


def test_it_stands_in_a_line_of_its_own():
    assert asked("what is this?", "In a word.") == "what is this?\nIn a word."
    assert asked("what is this?", "") == "what is this?"
