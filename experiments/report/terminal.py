"""What a person sees on the terminal: one bar per running job, an overall bar, and the table at the end.

On anything but a terminal (a pipe, a log) the bars become plain lines, one per quarter of a run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from cdc_flower.tasks import Task, task_of
from experiments.report.amounts import percent, size, whole
from experiments.report.left import Left
from experiments.report.loggers import told
from experiments.report.tables import INTERVALS, Fitted, console_of, on_two_lines
from experiments.run.pool import Event, Job

WIDE = 100  # columns of a terminal that has room for all of a bar's


def above(live: Live, line: str, soft_wrap: bool) -> None:
    """Print a line above what is live. rich counts the lines that it goes up before it writes; a refresh of
    another height in between, by its own thread, would leave some of them torn or overwrite one above.
    """
    with live._lock:
        live.console.print(line, markup=False, soft_wrap=soft_wrap)


class Terminal:
    """Progress of a comparison. Use as a context; call `listen` with events, `preparing` before the jobs.

    Args:
        console: where to write; standard error by default, so that tables alone go to standard output.
        jobs: how many runs there will be.
        show: False = say nothing.
    """

    def __init__(self, jobs: int, console: Console | None = None, show: bool = True) -> None:
        self.console = console or console_of(stderr=True)
        self.show = show
        wide = self.console.width >= WIDE

        def text(shown: str, **column: Any) -> TextColumn:
            return TextColumn(shown, table_column=Column(no_wrap=True, overflow="ellipsis", **column))

        columns = [
            text("{task.description}", max_width=32),
            BarColumn(bar_width=24 if wide else 10, table_column=Column(min_width=10)),
            text("{task.completed:.0f}/{task.total:.0f}"),
            *([TimeElapsedColumn()] if wide else []),
            text("{task.fields[left]}"),
            text("[dim]{task.fields[stage]}", ratio=1),
        ]
        self.bars = Progress(*columns, console=self.console, transient=True, expand=True)
        self.left = Left()
        self.live = show and self.console.is_terminal
        self.loggers = told(self.say) if self.live else contextlib.nullcontext()
        self.jobs, self.done = jobs, 0
        self.tasks: dict[Job, TaskID] = {}
        self.quarters: dict[Any, int] = {}
        self.overall: TaskID | None = None

    def __enter__(self) -> Terminal:
        self.loggers.__enter__()
        if self.live:
            self.bars.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        if self.live:
            self.bars.stop()
        self.loggers.__exit__(*raised)

    def say(self, line: str) -> None:
        """Print one line above the bars."""
        if self.show:
            above(self.bars.live, line, soft_wrap=not self.console.is_terminal)

    @contextlib.contextmanager
    def preparing(self, what: str) -> Iterator[Any]:
        """A bar of its own for work done before the runs; gives `progress(stage, done, total)`."""
        task = self.bars.add_task(f"[bold]{what}", total=1, stage="", left="") if self.live else None
        if not self.live:
            self.say(f"{what}: started")

        def progress(stage: str, done: int, total: int) -> None:
            key = what, stage.partition(" (")[0]
            left = self.left.of(key, done, total)
            if task is not None:
                self.bars.update(task, completed=done, total=max(total, 1), stage=stage, left=left)
            else:
                self._quarter(key, f"{what}: {stage}", done, total, left)

        yield progress
        if task is not None:
            self.bars.remove_task(task)

    def begin(self) -> None:
        """Show that the runs begin: until the first of them says something its process loads libraries."""
        if self.live and self.overall is None:
            self.overall = self.bars.add_task("[bold]runs", total=self.jobs, stage="starting", left="")

    def listen(self, event: Event) -> None:
        """Show an event of the pool."""
        job = event.job
        self.begin()
        if event.kind == "start":
            if self.live:
                rounds = job.settings.get("run.rounds", 1)
                stage = f"goes on after round {event.done}" if event.done else "starting"
                self.tasks[job] = self.bars.add_task(
                    f"{job.name}", total=rounds, completed=event.done, stage=stage, left=""
                )
            else:
                self.say(f"{job.name}: started")
        elif event.kind == "progress":
            stage = event.stage if job in self.tasks else ""
            left = self.left.of((job, stage), event.done, event.total)
            if job in self.tasks:
                total = max(event.total, 1)
                self.bars.update(
                    self.tasks[job], completed=event.done, total=total, stage=event.stage, left=left
                )
            elif not self.live:
                self._quarter(job, f"{job.name}: round", event.done, event.total, left)
        else:
            self.done += 1
            if job in self.tasks:
                self.bars.remove_task(self.tasks.pop(job))
            if event.kind == "failed":
                self.say(f"{job.name}: failed: {event.stage}")
            else:
                self.say(f"{job.name}: done ({self.done} of {self.jobs})")
        if self.overall is not None:
            under_way = sum(task.percentage for task in self.bars.tasks if task.id in self.tasks.values())
            done = self.done + under_way / 100
            left = self.left.of("runs", done, self.jobs)
            self.bars.update(self.overall, completed=done, left=left, stage="")

    def _quarter(self, key: Any, text: str, done: int, total: int, left: str) -> None:
        if further(self.quarters, key, done, total):
            self.say(f"{text} {done}/{total}{left and f', {left}'}")


def further(quarters: dict[Any, int], key: Any, done: int, total: int) -> bool:
    """Whether something is a quarter further than `quarters`, where that is noted, knows."""
    quarter = 4 * done // max(total, 1)
    if quarter <= quarters.get(key, 0):
        return False
    quarters[key] = quarter
    return True


def share(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A share in percent, with half the width of its interval: 0.914 -> "91.4" or "91.4 ±0.8"."""
    if value is None or pd.isna(value):
        return "-"
    text = percent(value)
    if low is None or high is None or pd.isna(low):
        return text
    return f"{text} ±{percent((high - low) / 2)}"


ON_STREAM = "teacher, stream"  # the teacher on rows that devices meet
COLUMNS = (
    "method",
    "labels",
    "backprop",
    "source %",
    "drift %",
    "gap closed %",
    "forgets points",
    "bytes up",
    "bytes down",
    "device GFLOP",
    "cloud GFLOP",
)
SPARE = (
    *("cloud GFLOP", "device GFLOP", "backprop", INTERVALS),
    *("gap closed %", "bytes down", "forgets points"),
)
"""What a narrow terminal goes without, in this order."""


def named(heads: Sequence[str], task: Task) -> list[str]:
    """Heads of columns as the task counts: for captions "source %" is "CIDEr source", times 100."""
    if task.unit == "accuracy":
        return list(heads)
    return [
        f"{task.unit} {head.rpartition(' ')[0]}"
        if head in ("source %", "drift %", "forgets points")
        else head
        for head in heads
    ]


def rows(comparison: Any) -> list[tuple[str, ...]]:
    """The headline table as text, teacher first, one tuple of `COLUMNS` per row."""
    from experiments.report.summary import drift_mean

    heads = [
        (name, "", "", share(of.get("source")), share(drift_mean(of)), *[""] * 6)
        for name, of in (("teacher", comparison.teacher), (ON_STREAM, comparison.teacher_on_stream))
        if of
    ]
    body = []
    for row in comparison.methods.to_dict("records"):
        body.append(
            (
                row["method"],
                "yes" if row["labels"] else "no",
                "yes" if row["device_backprop"] else "no",
                *(share(row[k], row[f"{k}_low"], row[f"{k}_high"]) for k in ("acc_source", "acc_drift")),
                share(row["gap_closed"]),
                share(row["forgetting"], row["forgetting_low"], row["forgetting_high"]),
                size(row["uplink_bytes"]),
                size(row["downlink_bytes"]),
                *(whole(row[k]) for k in ("device_gflops", "cloud_gflops")),
            )
        )
    return [*heads, *body]


def markdown(comparison: Any) -> str:
    """The headline table for a README or a note."""
    return as_markdown(named(COLUMNS, task_of(comparison.index["config"])), rows(comparison))


def as_markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table of texts in Markdown."""
    lines = [heads, tuple("---" if i == 0 else "---:" for i in range(len(heads))), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_items(items: Mapping[str, int]) -> str:
    """How many items shares are of: those of the source, and of all drift."""
    source, every = items.get("source", 0), sum(items.values())
    parts = [f"{n:,} {what}" for what, n in (("source", source), ("drift", every - source)) if n]
    return f"{every:,} items" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")


def table(comparison: Any) -> Fitted:
    """The headline table for a terminal: what does not fit is left out whole (see `SPARE`)."""
    index, task = comparison.index, task_of(comparison.index["config"])
    config, seeds = index["config"], len(index["seeds"])
    return Fitted(
        [on_two_lines(head) for head in named(COLUMNS, task)],
        rows(comparison),
        spare=[head if head == INTERVALS else on_two_lines(head) for head in named(SPARE, task)],
        title=f"{index['data']}: {config['run.devices']} devices, {config['run.rounds']} rounds, "
        f"{seeds} seed{'s' if seeds > 1 else ''}, {of_items(comparison.items)}",
        elsewhere="see the report",
    )
