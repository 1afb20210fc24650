"""The live view goes to a terminal or a pipe, and leaves the loggers alone."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

from cdc_flower.config import parse
from experiments.cli import app as cli
from experiments.report.live import Watch
from experiments.run import simulate


def test_a_pipe_gets_one_line_for_each_round_also_over_an_older_run(run_settings, capsys):
    settings = run_settings(rounds=2, eval_every=2)
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            cli.main(["simulate", "--live", "--preset", "none", *sets])
        shown = capsys.readouterr()
        rows = [row for row in shown.err.splitlines() if row.startswith("round ")]
        assert ended.value.code == 0
        assert [row.split(" | ")[0] for row in rows] == ["round 0/2", "round 1/2", "round 2/2"]
        assert "source" in rows[0]
        assert "source" not in rows[1]
        assert "asked 3 in 3" in rows[2]
        assert rows[2].endswith("0:00 left")
        assert "run folder: " in shown.out


def test_a_pipe_is_told_what_is_done_before_the_first_round(tmp_path):
    shown = io.StringIO()
    with Watch(tmp_path, Console(file=shown, width=100)) as watch, watch.preparing("cdc · seed 0") as tell:
        for done in range(0, 101, 10):
            tell(f"tower (loss {done})", done, 100)
        tell("rounds", 0, 2)
    assert shown.getvalue().splitlines() == [
        "cdc · seed 0: started",
        *(f"cdc · seed 0: tower (loss {done}) {done}/100" for done in (30, 50, 80, 100)),
    ]


def test_a_terminal_gets_the_view_with_warnings_in_it_and_the_loggers_get_their_handlers_back(run_settings):
    logger = logging.getLogger("flwr")
    before = list(logger.handlers)
    config = parse(run_settings(rounds=2, eval_every=2, fail_devices="1:1"))
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100, height=30)
    with Watch(Path(config.run.out_dir), console) as terminal, terminal.preparing("cdc · seed 0") as tell:
        simulate.local(config, tell)
    assert "round 2 of 2" in shown.getvalue()
    assert "! round 1: device 1" in shown.getvalue()
    assert logger.handlers == before
