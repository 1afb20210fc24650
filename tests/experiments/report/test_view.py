"""The view of a run shows what its folder says, as a panel and as a line."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.run_folder import RunFolder
from experiments.report.view import BLOCKS, State, line, of_run, sparkline, view

FULL = State(
    title="cdc · seed 0",
    rounds=14,
    round=7,
    stage="evaluation",
    hours=76.4,
    counts={"online": 41_200, "asked": 1300, "in": 1000, "late": 210, "away": 70, "flat": 20},
    up=12_345_678,
    down=4_321,
    stream={"source": 0.91, "object": 0.452, "question": 0.711},
    overall=(0.3, 0.5, 0.4, 0.702),
    held_out={"source": 0.895, "object": 0.61},
    measured=7,
    seconds=(10.0, 14.0),
    warnings=("round 2: device 1: " + "long " * 40,),
)


def text(state: State, width: int = 80) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(view(state))
    return console.export_text()


def test_the_view_shows_every_part_of_the_state_in_eighty_columns():
    shown = text(FULL)
    for part in (
        "cdc · seed 0",
        "round 7 of 14",
        "evaluation",
        "3 d 4 h",
        "14.0 s a round, 1:24 left",
        "online 41200, asked 1300, in 1000,",
        "late 210, away 70, flat 20",
        "up 12.3 MB, down 4.32 kB",
        "held out, round 7",
        "▁▄▂█  30.0 → 70.2 %",
        "! round 2: device 1: long",
    ):
        assert part in " ".join(shown.replace("│", " ").split()) or part in shown, part
    rows = [row.strip("│ ").split() for row in shown.splitlines()]
    assert ["right,", "%", "source", "object", "question", "all"] in rows
    assert ["on", "the", "stream", "91.0", "45.2", "71.1", "70.2"] in rows
    assert ["held", "out,", "round", "7", "89.5", "61.0", "-"] in rows
    assert {cell_len(row) for row in shown.splitlines()} == {80}
    assert len(text(replace(FULL, warnings=FULL.warnings * 3)).splitlines()) == len(shown.splitlines()) + 2


def test_before_anything_has_happened_there_are_dashes():
    shown = text(State("cdc · seed 0"))
    assert "round 0 of -" in shown
    assert "virtual time  -" in shown
    assert "online -, asked -, in -, late -, away -, flat -" in shown
    assert "→" not in shown


@pytest.fixture
def folder(tmp_path):
    """A run of two rounds in virtual time: 3 devices asked, 1 in, in the last round."""
    made = RunFolder(tmp_path / "run")
    made.begin(parse({"run.rounds": 5}), {}, {})
    columns = ["round", "device", "status", "uplink_bytes", "downlink_bytes"]
    rows = [(1, 0, "ok", 10, 1), (2, 0, "ok", 20, 2), (2, 1, "missing", 0, 4), (2, 2, "failed", 0, 8)]
    made.devices(pd.DataFrame(rows, columns=columns))
    made.round(0, {"source": 0.9, "object": 0.2}, {}, {})
    made.round(1, None, {"source": (1, 4), "object": (3, 4)}, {"hours": 1.5, "online": 3})
    fates = {"hours": 30.5, "online": 9, "asked": 4, "in": 1, "late": 2, "away": 1, "flat": 0}
    made.round(2, None, {"source": (1, 1), "object": (0, 3)}, {**fates, "loss": 0.5})
    return made


def test_the_state_is_what_the_run_folder_says(folder):
    state = of_run(State("x"), results.read(folder.path))
    assert (state.round, state.rounds, state.hours) == (2, 5, 30.5)
    assert state.counts == {"online": 9, "asked": 4, "in": 1, "late": 2, "away": 1, "flat": 0}
    assert (state.up, state.down, state.failed) == (30, 15, 2)
    assert state.stream == {"source": 1.0, "object": 0.0}
    assert state.overall == [0.5, 0.25]
    assert (state.held_out, state.measured) == ({"source": 0.9, "object": 0.2}, 0)


def test_without_virtual_time_the_ledger_says_who_was_asked(folder):
    for name in ("hours", "online", "asked", "in", "late", "away", "flat"):
        folder._metrics.pop((2, name))
    folder.round(2, None, {}, {})
    state = of_run(State("x"), results.read(folder.path))
    assert (state.hours, state.counts) == (None, {"asked": 3, "in": 1})
    assert "virtual time  -" in text(state)
    assert "asked 3, in 1, late -, away -, flat -, 2 failed" in text(state)


def test_time_left_is_judged_by_the_last_rounds():
    assert FULL.left == 7 * 12.0
    assert State("x").left is None


def test_a_sparkline_goes_from_its_lowest_to_its_highest():
    assert sparkline([0.1, 0.9]) == BLOCKS[0] + BLOCKS[-1]
    assert set(sparkline([0.5] * 3)) == {BLOCKS[3]}
    long = sparkline([i / 1000 for i in range(1000)], 16)
    assert len(long) == 16
    assert list(long) == sorted(long)


def test_a_round_is_one_plain_line():
    assert line(FULL) == (
        "round 7/14 | 3 d 4 h | online 41200 asked 1300 in 1000 late 210 away 70 flat 20 | up 12.3 MB down "
        "4.32 kB | stream 70.2 % source 89.5 % object 61.0 % | 14.0 s, 1:24 left"
    )
    assert "source" not in line(replace(FULL, measured=6))
    assert line(replace(State("x", rounds=3), round=1)) == "round 1/3 | up 0 B down 0 B"
