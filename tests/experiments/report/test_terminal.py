"""The table fits the terminal: nothing is wrapped or cut, and what is left out is named."""

import io
import logging
import re
import threading
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console

from cdc_flower.tasks import TASKS
from experiments.report import terminal
from experiments.report.left import Left
from experiments.report.summary import MEASURES
from experiments.run.pool import Event, Job

METHODS = ("static", "cdc", "fedavg_lora", "fedprox_lora", "fedavg_full", "fedavg_pseudo")


def comparison(intervals):
    def row(method):
        shares = dict.fromkeys(("acc_source", "acc_drift", "forgetting"), 0.9123)
        ends = {
            f"{m}_{end}": v if intervals else None
            for m in MEASURES
            for end, v in (("low", 0.8), ("high", 1.04))
        }
        return {
            "method": method,
            "labels": True,
            "device_backprop": False,
            "gap_closed": -0.1234,
            **shares,
            "uplink_bytes": 123_456_789,
            "downlink_bytes": 999_499,
            "device_gflops": 123456.0,
            "cloud_gflops": 123456.0,
            **ends,
        }

    return SimpleNamespace(
        index={"data": "scenes", "config": {"run.devices": 8, "run.rounds": 12}, "seeds": [0, 1, 2]},
        teacher={"source": 1.0, "object": 1.0},
        teacher_on_stream={"source": 1.0, "object": 0.9},
        items={"source": 200, "object": 200},
        methods=pd.DataFrame([row(m) for m in METHODS]),
    )


def lines(intervals, width):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(terminal.table(comparison(intervals)))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("intervals", [True, False])
@pytest.mark.parametrize("width", [100, 80, 60])
def test_every_method_has_one_line_within_the_width(intervals, width):
    shown = lines(intervals, width)
    assert max(map(len, shown)) <= width
    assert [line.split()[0] for line in shown if line.split()[0] in METHODS] == list(METHODS)
    assert not any("…" in line for line in shown)


def test_110_columns_show_everything_with_intervals_and_100_all_but_the_clouds_work():
    assert lines(True, 100)[-1].strip() == "too narrow for: cloud GFLOP; see the report"
    shown = lines(True, 110)
    assert "too narrow" not in shown[-1]
    cdc = next(line for line in shown if line.startswith("cdc"))
    assert cdc.split() == [
        "cdc",
        "yes",
        "no",
        "91.2",
        "±12.0",
        "91.2",
        "±12.0",
        "-12.3",
        "91.2",
        "±12.0",
        "123",
        "MB",
        "999",
        "kB",
        "123,456",
        "123,456",
    ]
    stream = next(line for line in shown if line.startswith("teacher, stream"))
    assert stream.split()[2:] == ["100.0", "90.0"]


def test_a_narrow_terminal_is_told_what_it_does_not_see():
    assert lines(True, 80)[-1].strip() == (
        "too narrow for: cloud GFLOP, device GFLOP, backprop; see the report"
    )
    assert lines(False, 80)[-1].strip() == "too narrow for: cloud GFLOP, device GFLOP; see the report"
    assert "±" not in " ".join(lines(True, 60))


def job(name, rounds=100):
    return Job(name, 0, {"run.rounds": rounds})


def test_the_bar_of_a_run_that_goes_on_begins_where_it_stopped():
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with terminal.Terminal(1, console) as shown:
        shown.listen(Event(job("cdc", 12), "start", done=7, total=12))
        view = Console(file=io.StringIO(), width=120, color_system=None)
        view.print(shown.bars.get_renderable())
    assert re.search(r"cdc . seed 0 .* 7/12 .*goes on after round 7", view.file.getvalue())


@pytest.mark.parametrize("width", [80, 120])
def test_bars_stay_within_the_terminal_and_each_says_how_long_it_will_take(width, monkeypatch):
    now = iter(range(0, 1000, 10))
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    shown, jobs = terminal.Terminal(3, console), [job("fedprox_lora"), job("cdc")]
    shown.left = Left(lambda: next(now))
    with shown, shown.preparing("fedavg_lora · seed 0") as tell:
        for done in (0, 40):
            tell("evaluate (loss 0.123), all devices of the fleet", done, 100)
        for one in jobs:
            shown.listen(Event(one, "start"))
        for done in (0, 10, 30):
            for one in jobs:
                shown.listen(Event(one, "progress", "rounds", done, 100))
        view = Console(file=io.StringIO(), width=width, color_system=None)
        view.print(shown.bars.get_renderable())
    bars = view.file.getvalue().splitlines()
    assert len(bars) == 4
    assert all(len(line) <= width and " left" in line for line in bars)
    assert " min left" in bars[1]


def test_no_refresh_comes_between_counting_the_lines_of_bars_and_writing_above_them(monkeypatch):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with terminal.Terminal(1, console) as shown:
        refresh = threading.Thread(target=shown.bars.refresh)
        write, waited = console.print, []

        def slowly(*texts, **how):
            if threading.current_thread() is threading.main_thread():
                refresh.start()
                refresh.join(0.3)
                waited.append(refresh.is_alive())
            write(*texts, **how)

        monkeypatch.setattr(console, "print", slowly)
        shown.say("cdc · seed 0: done (1 of 1)")
        refresh.join(10)
        monkeypatch.undo()
    assert waited == [True]
    assert not refresh.is_alive()


def test_a_warning_goes_above_the_bars_and_no_handler_writes_into_them():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    logger, torn = logging.getLogger("flwr"), io.StringIO()
    handler = logging.StreamHandler(torn)
    logger.addHandler(handler)
    try:
        with terminal.Terminal(1, console):
            logger.warning("device %d\nis late", 3)
            logger.info("round 1")
    finally:
        logger.removeHandler(handler)
    assert torn.getvalue() == ""
    assert console.file.getvalue().count("device 3 is late\n") == 1
    assert "round 1" not in console.file.getvalue()


def test_a_log_gets_a_line_per_quarter_of_a_stage_whatever_its_loss_is():
    console = Console(file=io.StringIO(), width=80)
    with terminal.Terminal(1, console) as shown, shown.preparing("pair") as tell:
        shown.left = Left(lambda: 0.0)  # on a clock that stands no time is left
        for step in range(0, 101, 10):
            tell(f"tower (loss {1 / (step + 1):.3f})", step, 100)
        tell("teacher (loss 1.000)", 30, 100)
    said = console.file.getvalue().splitlines()
    assert said.pop(0) == "pair: started"
    counts = [re.search(r"\d+/100", line)[0] for line in said]
    assert counts == ["30/100", "50/100", "80/100", "100/100", "30/100"]
    assert said[0].endswith(", 0 s left")


def test_markdown_has_a_row_of_as_many_cells_for_the_teacher_and_every_method():
    shown = terminal.markdown(comparison(True)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]
    assert [row[0] for row in cells] == ["method", "---", "teacher", terminal.ON_STREAM, *METHODS]
    assert {len(row) for row in cells} == {len(terminal.COLUMNS)}
    assert cells[4][3] == "91.2 ±12.0"


def test_what_is_forgotten_is_told_in_points():
    assert "forgets points" in terminal.markdown(comparison(True)).splitlines()[0]
    assert "forgets\npoints" in terminal.table(comparison(True)).heads


def test_shares_for_people():
    assert terminal.share(0.914) == "91.4"
    assert terminal.share(0.914, 0.9, 0.93) == "91.4 ±1.5"
    assert terminal.share(None) == "-"


def test_columns_are_named_by_what_the_task_counts():
    assert terminal.named(terminal.COLUMNS, TASKS["vqa"]) == list(terminal.COLUMNS)
    named = terminal.named(terminal.COLUMNS, TASKS["captions"])
    assert named[3:7] == ["CIDEr source", "CIDEr drift", "gap closed %", "CIDEr forgets"]
