"""Rows of several tasks in one pack, each judged by its own."""

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.tasks import TASKS, Truth

TEN = ("red",) * 2 + ("blue",) * 8


def test_each_row_is_judged_by_the_task_it_names():
    soft, direct = Truth("blue", TEN, (), "vqa"), Truth("blue", TEN, (), "aokvqa")
    worth = TASKS["by-row"].fit([soft])
    assert worth("red", soft) == pytest.approx(0.6)
    assert worth("red", direct) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["", "captions", "by-row", "other"])
def test_a_row_of_no_task_or_of_one_with_another_unit_is_refused(name):
    with pytest.raises(ConfigError, match=f"column 'task' says '{name}'; allowed: exact, vqa"):
        TASKS["by-row"].fit([Truth("a", ("a",), (), name)])
