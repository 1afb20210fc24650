"""The table of several comparisons, for people and for programs."""

from __future__ import annotations

import json

import pytest

from experiments.run import compare


@pytest.fixture
def folder(engine, tmp_path):
    """A comparison of two methods."""
    small = {"run.rounds": 2, "run.devices": 2}
    compare.run(small, ("static", "cdc"), 1, tmp_path / "out", 0, progress=False, engine=engine)
    return tmp_path / "out"


def test_the_table_names_arms_problem_and_data(command, folder):
    code, out, _ = command("leaderboard", folder)
    assert code == 0
    assert "problem " in out
    assert "cdc" in out
    assert "Pareto front" in out


def test_programs_get_the_settings_of_the_problem(command, folder):
    code, out, _ = command("leaderboard", folder, "--json")
    (board,) = json.loads(out[out.index("[") :])  # behind what the stand-in engine prints
    assert code == 0
    assert board["problem"]["run.rounds"] == 2
    assert {row["name"] for row in board["rows"]} == {"static", "cdc"}
    assert any(row["front"] for row in board["rows"])
