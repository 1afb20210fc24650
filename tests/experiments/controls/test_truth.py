"""How a round is predicted from the floor, the simulator's seconds and the bytes of Flower's calls."""

import pandas as pd

from experiments.controls.truth import Look, Phase, held, messages, predicted, table, virtual_seconds

FLOOR = Phase(0.0, 0.0, (9.0, 10.0, 12.0), (1.0, 1.0, 1.0), calls=0.0)


def test_a_round_takes_the_floor_what_the_simulator_adds_and_the_calls():
    phase = Phase(1000.0, 2000.0, (20.0, 21.0, 30.0), (4.0, 5.0, 7.0), calls=3.5)
    assert predicted(FLOOR, phase, (1.0, 1.0, 1.0)) == 10.0 + 4.0 + 3.5
    assert phase.deployed == 21.0


def test_the_floor_predicts_itself():
    assert predicted(FLOOR, FLOOR, FLOOR.simulated) == FLOOR.deployed


def test_of_a_link_the_bytes_of_a_message_are_those_from_its_fetching_to_its_reply():
    polled = [Look(0.0, 0, 0, 0, 0), Look(1.0, 100, 50, 0, 0), Look(2.0, 100, 50, 0, 0)]
    fetched = [Look(3.0, 200, 150, 0, 0), Look(4.0, 260, 900, 1, 0), Look(5.0, 260, 900, 1, 0)]
    replied = [Look(6.0, 5000, 950, 1, 0), Look(7.0, 5200, 990, 1, 1), Look(8.0, 5300, 1040, 1, 1)]
    (found,) = messages([*polled, *fetched, *replied])
    assert found == [(1.0, 100, 100), (1.0, 60, 750), (1.0, 0, 0), (1.0, 4740, 50), (1.0, 200, 40)]
    assert messages(polled) == []


def test_a_call_after_a_pause_passes_at_once_and_many_wait_for_the_rate():
    small = [(1.0, 2000, 500)] * 3
    assert held(small, (0, 0), (2000.0, 2000.0)) == 0.0
    assert held(small, (0, 0), (0.0, 0.0)) == 0.0
    at_once = [(0.0, 2000, 500)] * 3
    assert held(at_once, (0, 0), (2000.0, 2000.0)) == 1.5  # 6000 bytes, of which 3000 pass
    assert held([(0.0, 2000, 500), (0.0, 9000, 500)], (9000, 0), (2000.0, 2000.0)) == 0.0  # the simulator's


def test_virtual_seconds_are_those_between_the_ends_of_rounds():
    rows = [(1, "hours", 0.5), (2, "hours", 0.75), (2, "guard_share", 1.0)]
    metrics = pd.DataFrame(rows, columns=["round", "name", "value"])
    assert virtual_seconds(type("Run", (), {"metrics": metrics})()) == {1: 1800.0, 2: 900.0}  # type: ignore[arg-type]


def test_the_table_has_a_line_a_link():
    link = {"up": 8000.0, "down": 16000.0, "predicted": 15.0, "deployed": 16.5, "ratio": 1.1, "calls": 2.0}
    floor = {"up": 0.0, "down": 0.0, "predicted": 10.0, "deployed": 10.0, "ratio": 1.0, "calls": 0.0}
    lines = table({"links": [floor, link]})
    assert lines[2] == "| no rate | 10.0 s | 0.0 s | 0.0 s | 10.0 s | 10.0 s | 1.00 |"
    assert lines[3] == "| 8, 16 kB/s | 10.0 s | 3.0 s | 2.0 s | 15.0 s | 16.5 s | 1.10 |"
