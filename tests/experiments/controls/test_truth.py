"""How a round is predicted from the floor, the simulator's seconds and the floor's bytes."""

import pandas as pd

from experiments.controls.truth import Phase, predicted, quiet, table, virtual_seconds

FLOOR = Phase(0.0, 0.0, (9.0, 10.0, 12.0), (1.0, 1.0, 1.0), extra_up=5000.0, extra_down=8000.0)


def test_a_round_takes_the_floor_what_the_simulator_adds_and_the_calls():
    phase = Phase(1000.0, 2000.0, (20.0, 21.0, 30.0), (4.0, 5.0, 7.0), 0.0, 0.0)
    assert predicted(FLOOR, phase, (1.0, 1.0, 1.0)) == 10.0 + 4.0 + 5.0 + 4.0
    assert phase.deployed == 21.0


def test_the_floor_predicts_itself():
    assert predicted(FLOOR, FLOOR, FLOOR.simulated) == FLOOR.deployed


def test_the_quietest_seconds_are_those_in_which_nothing_is_asked():
    moments = [(t, 100 * t, 50 * t) for t in range(0, 31, 3)]  # three questions in nine seconds
    busy = [(30 + t, 3000 + 900 * t, 1500 + 700 * t) for t in range(1, 20)]
    assert quiet([*moments, *busy]) == (100.0, 50.0)
    assert quiet([(0.0, 0, 0), (10.0, 0, 0), (20.0, 200, 100)]) == (20.0, 10.0)  # connected late
    assert quiet([(0.0, 0, 0)]) == (0.0, 0.0)


def test_virtual_seconds_are_those_between_the_ends_of_rounds():
    rows = [(1, "hours", 0.5), (2, "hours", 0.75), (2, "guard_share", 1.0)]
    metrics = pd.DataFrame(rows, columns=["round", "name", "value"])
    assert virtual_seconds(type("Run", (), {"metrics": metrics})()) == {1: 1800.0, 2: 900.0}  # type: ignore[arg-type]


def test_the_table_has_a_line_a_link():
    link = {"up": 8000.0, "down": 16000.0, "predicted": 15.0, "deployed": 16.5, "ratio": 1.1}
    floor = {"up": 0.0, "down": 0.0, "predicted": 10.0, "deployed": 10.0, "ratio": 1.0}
    lines = table({"links": [floor, link]})
    assert lines[2] == "| no rate | 10.0 s | 0.0 s | 10.0 s | 10.0 s | 1.00 |"
    assert lines[3] == "| 8, 16 kB/s | 10.0 s | 5.0 s | 15.0 s | 16.5 s | 1.10 |"
