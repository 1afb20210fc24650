"""What a run looks like while it goes on: a `State` read from its folder, as a panel or as one plain line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cdc_flower import results
from cdc_flower.tasks import task_of
from experiments.report.amounts import size
from experiments.report.terminal import share

FATES = ("in", "late", "away", "flat")
BLOCKS = "▁▂▃▄▅▆▇█"
WIDE = 40  # characters of the sparkline


@dataclass(frozen=True)
class State:
    """What the view shows. Accuracies are shares 0..1; counts are of the last round.

    Attributes:
        title: method, seed and data.
        round, rounds: done, of how many.
        stage: what is being done now.
        hours: virtual time at the end of the last round; None where there is none (`fleet.mode = "off"`).
        counts: "online", "asked" and `FATES`; what is not known is absent.
        failed: device-tasks of the last round that raised or never answered.
        up, down: bytes so far, all devices.
        stream: domain -> prequential accuracy of the last round; overall: of every round so far.
        held_out: domain -> accuracy when it was last measured, after round `measured`.
        seconds: of this host for each of the last rounds.
        warnings: the last lines that were logged.
        unit: of accuracies times 100: "%", or what the run's task counts.
    """

    title: str
    rounds: int = 0
    round: int = 0
    stage: str = ""
    hours: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0
    up: float = 0
    down: float = 0
    stream: Mapping[str, float] = field(default_factory=dict)
    overall: Sequence[float] = ()
    held_out: Mapping[str, float] = field(default_factory=dict)
    measured: int | None = None
    seconds: Sequence[float] = ()
    warnings: Sequence[str] = ()
    unit: str = "%"

    @property
    def left(self) -> float | None:
        """Host seconds until the end, judged by the last rounds; None before the first."""
        if not self.seconds:
            return None
        return (self.rounds - self.round) * sum(self.seconds) / len(self.seconds)


def of_run(state: State, run: results.RunResult) -> State:
    """The state with what a run folder says."""
    at = max(run.rounds["round"].tolist(), default=0)
    now = run.metrics[run.metrics["round"] == at]
    told = dict(zip(now["name"].tolist(), now["value"].tolist(), strict=True))
    tasks = run.devices[run.devices["round"] == at]
    good = int((tasks["status"] == "ok").sum())
    counts = {"asked": len(tasks), "in": good} if len(tasks) else {}
    counts |= {name: round(told[name]) for name in ("online", "asked", *FATES) if name in told}
    live = run.rounds[run.rounds["kind"] == "prequential"]
    last, tested = live[live["round"] == at], run.rounds[run.rounds["kind"] == "test"]
    measured = max(tested["round"].tolist(), default=None)
    total = results.totals(run.devices)
    return replace(
        state,
        round=int(at),
        rounds=int(run.config["run.rounds"]),
        hours=told.get("hours"),
        counts=counts,
        failed=len(tasks) - good,
        up=total["uplink_bytes"],
        down=total["downlink_bytes"],
        stream=_by_domain(last),
        overall=_overall(live),
        held_out=results.final_accuracy(run.rounds),
        measured=measured,
        unit=task_of(run.config).shown,
    )


def _by_domain(rows: pd.DataFrame) -> dict[str, float]:
    return {str(d): float(a) for d, a in zip(rows["domain"], rows["accuracy"], strict=True)}


def _overall(rows: pd.DataFrame) -> list[float]:
    """Share of all streamed questions answered right, round by round."""
    weighed = rows.assign(correct=rows["accuracy"] * rows["n"]).groupby("round")[["correct", "n"]].sum()
    return (weighed["correct"] / weighed["n"]).tolist()


# --- how it looks -------------------------------------------------------------------------------------------


def view(state: State) -> RenderableType:
    """The state as a panel."""
    head = Table.grid(padding=(0, 2), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True, style="dim")
    head.add_row(
        f"[bold]round {state.round} of {state.rounds or '-'}[/]",
        ProgressBar(total=max(state.rounds, 1), completed=state.round),
        state.stage,
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("virtual time", _span(state.hours))
    speed = f"{state.seconds[-1]:.1f} s a round, {_clock(state.left)} left" if state.seconds else "-"
    facts.add_row("this host", speed)
    facts.add_row("devices", _devices(state))
    facts.add_row("sent so far", f"up {size(state.up)}, down {size(state.down)}")
    parts: list[RenderableType] = [head, Text(), facts, Text(), _accuracies(state)]
    if state.overall:
        ends = f"{share(state.overall[0])} → {share(state.overall[-1])} {state.unit}"
        parts += [
            Text(),
            Text.assemble(("on the stream  ", "dim"), (sparkline(state.overall), "cyan"), f"  {ends}"),
        ]
    if state.warnings:
        parts += [
            Text(),
            *(
                Text(f"! {line}", style="yellow", no_wrap=True, overflow="ellipsis")
                for line in state.warnings
            ),
        ]
    return Panel(Group(*parts), title=state.title, title_align="left", box=box.ROUNDED, padding=(0, 1))


def _devices(state: State) -> Text:
    said = Text(", ".join(f"{name} {state.counts.get(name, '-')}" for name in ("online", "asked", *FATES)))
    if state.failed and not set(FATES[1:]) & set(state.counts):
        said.append(f", {state.failed} failed", style="red")
    return said


def _accuracies(state: State) -> Table:
    domains = sorted({*state.stream, *state.held_out}, key=lambda d: (d != "source", d))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    head = "right, %" if state.unit == "%" else f"{state.unit} x 100"
    table.add_column(head, style="dim", no_wrap=True)
    for domain in (*domains, "all"):
        table.add_column(domain, justify="right", no_wrap=True)
    table.add_row(
        "on the stream",
        *(share(state.stream.get(d)) for d in domains),
        share(state.overall[-1] if state.overall else None),
    )
    when = "held out" if state.measured is None else f"held out, round {state.measured}"
    table.add_row(when, *(share(state.held_out.get(d)) for d in domains), "")
    return table


def sparkline(values: Sequence[float], width: int = WIDE) -> str:
    """Values as blocks, lowest to highest; of many, means of neighbours."""
    if len(values) > width:
        edges = [i * len(values) // width for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(values), max(values) - min(values)
    return "".join(BLOCKS[min(7, int(8 * (v - low) / span)) if span else 3] for v in values)


def _span(hours: float | None) -> str:
    if hours is None:
        return "-"
    return f"{hours:.1f} h" if hours < 48 else f"{int(hours // 24)} d {hours % 24:.0f} h"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def line(state: State) -> str:
    """A round as one plain line."""
    counts = " ".join(
        f"{name} {state.counts[name]}" for name in ("online", "asked", *FATES) if name in state.counts
    )
    right = {"stream": state.overall[-1]} if state.overall else {}
    if state.measured == state.round:
        right |= state.held_out
    parts = [
        f"round {state.round}/{state.rounds}",
        "" if state.hours is None else _span(state.hours),
        counts,
        f"up {size(state.up)} down {size(state.down)}",
        " ".join(f"{domain} {share(value)} {state.unit}" for domain, value in right.items()),
        f"{state.seconds[-1]:.1f} s, {_clock(state.left)} left" if state.seconds else "",
    ]
    return " | ".join(part for part in parts if part)
