"""A run as it goes on, in the terminal: `cdc-flower simulate --live`.

What is shown is read from the run folder, which every engine brings up to date after each round: the view
needs nothing from engines. On anything but a terminal there is one plain line for each round instead, and one
for each quarter of what comes before the first.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from cdc_flower import results
from experiments.report.loggers import told
from experiments.report.tables import console_of
from experiments.report.terminal import above, further
from experiments.report.view import State, line, of_run, view

LAST = 5  # rounds whose mean seconds the time that is left is judged by
WARNINGS = 3  # lines


class Watch:
    """Shows a run; stands in for `terminal.Terminal` where one run is made.

    Args:
        folder: the run folder.
        console: standard error by default.
    """

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self.folder = folder
        self.console = console or console_of(stderr=True)
        self.state = State(folder.name)
        self._live = Live(console=self.console, refresh_per_second=4)
        self._log: deque[str] = deque(maxlen=WARNINGS)
        self._loggers = told(self._log.append) if self.console.is_terminal else contextlib.nullcontext()
        self._stamp, self._began = self._written(), time.monotonic()

    def __enter__(self) -> Watch:
        self._loggers.__enter__()
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._live.stop()
        self._loggers.__exit__(*raised)

    def say(self, text: str) -> None:
        """Print one line above the view."""
        above(self._live, text, soft_wrap=True)

    @contextlib.contextmanager
    def preparing(self, what: str) -> Iterator[Any]:
        """Gives `progress(stage, done, total)`, for the work before the run and for the run itself."""
        self.state = replace(self.state, title=what)
        if not self._live.is_started:
            self.say(f"{what}: started")
        quarters: dict[Any, int] = {}

        def progress(stage: str, done: int, total: int) -> None:
            of_rounds = stage == "rounds" or total == self.state.rounds
            before = not self._live.is_started and not self.state.rounds
            if before and not of_rounds and further(quarters, stage.partition(" (")[0], done, total):
                self.say(f"{what}: {stage} {done}/{total}")
            self._look(stage if of_rounds else f"{stage} {done}/{total}")

        yield progress

    def _look(self, stage: str) -> None:
        """Bring the state up to date; where the folder has a new round, show it."""
        shown = "" if stage == "rounds" else stage
        self.state = replace(self.state, stage=shown, warnings=tuple(self._log))
        stamp = self._written()
        if stamp not in (0, self._stamp):
            self._stamp = stamp
            before, known = self.state.round, bool(self.state.rounds)
            self.state = of_run(self.state, results.read(self.folder))
            now, rounds = time.monotonic(), self.state.round - before
            if known and rounds > 0:
                took = (now - self._began) / rounds
                self.state = replace(self.state, seconds=(*self.state.seconds, took)[-LAST:])
            self._began = now
            if not self._live.is_started:
                self.say(line(self.state))
        if self._live.is_started:
            self._live.update(view(self.state))

    def _written(self) -> int:
        """When the run folder last got a round; 0 = never."""
        path = self.folder / "metrics.parquet"
        return path.stat().st_mtime_ns if path.exists() else 0
