import pytest

from experiments.report.left import Left, duration


def test_a_piece_of_work_is_estimated_from_its_own_beginning():
    now = [0.0]
    left = Left(lambda: now[0])
    assert left.of("tower", 20, 1040) == ""
    now[0] = 10.0
    assert left.of("tower", 40, 1040) == ""  # too little of it is done
    now[0] = 20.0
    assert left.of("tower", 60, 1040) == "8 min left"
    assert left.of("teacher", 20, 1040) == ""
    now[0] = 520.0
    assert left.of("tower", 1040, 1040) == ""


def test_what_begins_anew_is_estimated_anew():
    now = [0.0]
    left = Left(lambda: now[0])
    for at, done, said in ((0, 0, ""), (10, 50, "10 s left"), (100, 0, ""), (101, 50, "1 s left")):
        now[0] = float(at)
        assert left.of("answers", done, 100) == said
    assert left.of("answers", 50, 200) == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (12_600, "3.5 h")])
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text
