"""Rows of several comparisons stand beside each other where they solve one problem, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_flower.config import ConfigError
from experiments.report.leaderboard import Row, boards, ranked

SMALL = {"run.rounds": 4, "run.devices": 2}


def row(name, accuracy, bytes, seconds=None):
    """A row with these alone."""
    costs = {"bytes": bytes, "device_gflops": 1.0, "device_seconds": seconds, "joules": None}
    return Row(name, "", accuracy, None, None, None, costs, False, 1, 10, "")


def front(*rows):
    """Names of the rows that are marked."""
    return {r.name for r in ranked(rows) if r.front}


def test_the_front_is_what_nothing_beats():
    assert front(row("dear", 0.9, 100), row("cheap", 0.5, 10), row("worse", 0.5, 20)) == {"dear", "cheap"}
    assert front(row("one", 0.5, 10), row("other", 0.5, 10)) == {"one", "other"}


def test_what_is_known_of_one_alone_decides_nothing():
    assert front(row("slow", 0.5, 10, seconds=9.0), row("unknown", 0.5, 10)) == {"slow", "unknown"}


def test_a_comparison_is_one_board_the_most_accurate_first(of_four):
    (board,) = boards([of_four.out])
    assert {r.name for r in board.rows} == set(of_four.methods["method"])
    assert [r.accuracy for r in board.rows] == sorted((r.accuracy for r in board.rows), reverse=True)
    assert {r.seeds for r in board.rows} == {2}
    assert len({r.settings for r in board.rows}) == 4
    drift = of_four.methods.set_index("method")["acc_drift"]
    assert {r.name: r.accuracy for r in board.rows} == pytest.approx(drift.to_dict())


def test_two_results_of_one_problem_share_a_board(of_four, compared):
    other = compared({**SMALL, "cloud.steps": 3}, ("cdc",))
    (board,) = boards([of_four.out, other.out])
    assert [r.name for r in board.rows].count("cdc") == 2
    assert len({r.settings for r in board.rows if r.name == "cdc"}) == 2


def test_a_folder_counts_once(of_four):
    with pytest.raises(ConfigError, match="given twice; allowed: each folder once"):
        boards([of_four.out, of_four.out.parent / "." / of_four.out.name / "runs" / ".."])


def test_another_problem_is_refused_by_the_first_setting_that_differs(of_four, compared):
    other = compared({**SMALL, "run.rounds": 3}, ("cdc",))
    with pytest.raises(ConfigError, match=r"'run.rounds' is 4 in .* and 3 in .*; allowed: .*--apart"):
        boards([of_four.out, other.out])
    assert len(boards([of_four.out, other.out], apart=True)) == 2


def test_a_row_keeps_what_it_is_when_it_is_marked():
    (one,) = ranked([row("one", 0.5, 10)])
    assert replace(one, front=False) == row("one", 0.5, 10)
