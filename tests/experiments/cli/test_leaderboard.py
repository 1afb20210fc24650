"""The table of several comparisons, for people and for programs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from experiments.report import leaderboard
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


def test_operations_are_written_as_in_the_report(command, folder, monkeypatch):
    found = leaderboard.boards([folder])
    costs = {"bytes": 1e6, "device_gflops": 4554.3, "device_seconds": 12.34, "joules": None}
    rows = [replace(row, costs=costs) for row in found[0].rows]
    monkeypatch.setattr(leaderboard, "boards", lambda folders, apart: [replace(found[0], rows=rows)])
    _, out, _ = command("leaderboard", folder)
    assert re.search(r"cdc .* 1 MB +4,554 +12\.3 +- ", out)


def test_programs_get_the_settings_of_the_problem(command, folder):
    code, out, _ = command("leaderboard", folder, "--json")
    (board,) = json.loads(out[out.index("[") :])  # behind what the stand-in engine prints
    assert code == 0
    assert board["problem"]["run.rounds"] == 2
    assert {row["name"] for row in board["rows"]} == {"static", "cdc"}
    assert any(row["front"] for row in board["rows"])
