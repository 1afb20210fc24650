"""A truth is the label with all references; where the data has none, the label is the only reference."""

import pandas as pd
import pyarrow as pa

from cdc_flower.tasks import TASKS, Truth, Truths


def test_without_list_columns_the_label_is_the_only_reference():
    assert list(Truths(pd.DataFrame({"answer": ["red", "two"]}))) == [
        Truth("red", ("red",)),
        Truth("two", ("two",)),
    ]


def test_lists_are_read_as_arrow_keeps_them_and_by_position_whatever_the_index():
    lists = pd.array([["red", "Red"], ["two"]], dtype=pd.ArrowDtype(pa.list_(pa.string())))
    frame = pd.DataFrame(
        {"answer": ["red", "two"], "answers": lists, "choices": [["a", "b"], []], "task": ["vqa", "aokvqa"]},
        index=[7, 3],
    )
    truths = Truths(frame)
    assert truths[0] == Truth("red", ("red", "Red"), ("a", "b"), "vqa")
    assert truths[1] == Truth("two", ("two",), (), "aokvqa")


def test_every_task_says_yes_to_the_label_written_otherwise():
    truth = Truth("yes", ("yes",) * 10, ("yes", "no"), "vqa")
    for name, task in TASKS.items():
        worth = task.fit([truth, Truth("no", ("a b",) * 10, (), "vqa")])
        assert worth("Yes", truth) == worth("yes", truth) > worth("no", truth) == 0, name
