"""report.html of a comparison: one file, no scripts, nothing fetched, made from what lies in the folder.

It is made at the end of `compare`, also when that was interrupted, and again by `cdc-flower report FOLDER`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from cdc_flower import disk
from cdc_flower.config import STAGES
from cdc_flower.tasks import task_of
from experiments.report import (
    charts,
    charts_cost,
    charts_fleet,
    charts_personal,
    first,
    own,
    retrieval,
    summary,
    sure,
    terminal,
)
from experiments.report.clip import clip, url
from experiments.report.notes import notes, subject
from experiments.report.summary import Comparison
from strategies.method import method, names

REPORT = "report.html"
PICTURES = 12
FAILURES = 40
TITLES = {
    sure.OWN: "right of devices' own questions",
    sure.DRIFT: "right of what was new",
    sure.SOURCE: "right of what was known",
}
"""Of the picture of the first screen, by what arms are judged by."""
BARS = {
    (
        "seeds",
        False,
    ): "Bars: 95 % interval over seeds; a lead, taken seed by seed, may be sure where bars overlap.",
    ("seeds", True): "Bars: 95 % interval, seeds and devices drawn anew.",
    (
        "one",
        False,
    ): "Bars: 95 % interval of the questions alone; of one run nothing says how another would end.",
    ("one", True): "Bars: 95 % interval, devices drawn anew; of one run nothing says how another would end.",
}
WORDS = (
    (
        "student",
        "the small vision-language model on each device: it answers questions about pictures or clips",
    ),
    ("teacher", "a larger model in the cloud; what it gets right shows what could be learned from it"),
    ("teacher, stream", "the teacher on the questions that devices met, not on those that were held out"),
    (
        "drift",
        "things that devices meet and the student was never trained on; what it was trained on is “source”",
    ),
    (
        "method",
        "a way to keep students right: who learns from what, and what is sent. “static” changes nothing",
    ),
    ("round", "devices answer questions, send what the method asks for, and get a change of the model back"),
    (
        "held-out",
        "questions with known answers that nothing was learned from; accuracy is the share answered right",
    ),
    ("gap closed", "how far accuracy on drift came from the student as shipped (0 %) to the teacher (100 %)"),
    (
        "forgets",
        "points of accuracy on the source that were lost since the student was shipped; below 0: gained",
    ),
    ("labels", "true answers that devices learn from; somebody has to give them"),
    ("backprop", "devices train, which takes time, memory and energy; else they only answer"),
    ("bytes", "of all messages of all devices in all rounds, up to the cloud and down from it"),
    ("GFLOP", "thousand million operations of arithmetic"),
    ("seed", "what decides everything random in a run; runs of several seeds show what chance does"),
    (
        "95 % interval",
        "holds the true figure in 95 of 100 experiments; a difference whose interval holds 0 may be chance",
    ),
)
"""What a reader may not know."""


def write(comparison: Comparison, path: Path | None = None) -> Path:
    """Write the report of a comparison, into its folder or to another place; returns where.

    Raises:
        DiskError: the disk does not take it.
    """
    path = path or comparison.out / REPORT
    disk.replace(path, render(comparison).encode())
    return path


def render(comparison: Comparison) -> str:
    """The page as text."""
    index = comparison.index
    evaluated, unit = set(comparison.methods["method"]), task_of(index["config"]).shown
    looks = {arm: look for arm, look in charts.styles(index["methods"]).items() if arm in evaluated}
    failures, by = _failures(comparison), sure.judged_by(comparison)
    return template("report").render(
        index=index,
        title=f"{index['data']}: {first.named(index)}",
        first=first.sentences(comparison),
        cost=_cost(comparison, looks, by, unit) if looks else "",
        bars=BARS["seeds" if len(index["seeds"]) > 1 else "one", by == sure.OWN],
        words=WORDS,
        columns=terminal.named(terminal.COLUMNS, task_of(index["config"])),
        items=terminal.of_items(comparison.items),
        counted="Accuracy" if unit == "%" else f"{unit} times 100",
        rows=terminal.rows(comparison),
        own_columns=own.columns(comparison),
        own_rows=own.rows(comparison),
        found_columns=retrieval.columns(comparison),
        found_rows=retrieval.rows(comparison),
        found_devices=retrieval.devices(comparison),
        notes=notes(comparison),
        legend=[(arm, charts.sample(look)) for arm, look in looks.items()],
        figures=_figures(comparison, looks) if looks else {},
        fleet=charts_fleet.figures(comparison, looks) if charts_fleet.there(comparison) else None,
        personal=charts_personal.figures(comparison, looks),
        pictures=[_picture(row) for row in chosen(comparison.pictures)],
        subject=subject(comparison),
        runs=_cells(comparison.runs, "method", "seed", "status", "rounds_done", "failures", "wall_seconds"),
        failures=_cells(failures[:FAILURES], "method", "seed", "round", "device", "status"),
        failure_count=len(failures),
        seconds=[(stage, f"{seconds:.1f}") for stage, seconds in index["host_seconds"].items()],
        settings=[*_settings(index), *index["versions"].items()],
    )


def _settings(index: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Of the stages, and of the sections of the methods that were run; of all where one is not installed."""
    ran = {arm.get("run.method", index["config"]["run.method"]) for arm in index["arms"].values()}
    read = {*STAGES, *(section for name in ran & {*names()} for section in method(name).settings)}
    for key, value in index["config"].items():
        if key not in ("run.method", "run.out-dir") and (key.partition(".")[0] in read or ran - {*names()}):
            yield key, value


def template(name: str) -> Template:
    """A page of the reports, by name."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(f"{name}.html.j2")


def _cells(table: pd.DataFrame, *columns: str) -> list[tuple[str, ...]]:
    """Rows of a table as texts; "-" for what is not there."""
    rows = table.reindex(columns=list(columns)).itertuples(index=False)
    return [
        tuple("-" if pd.isna(v) else f"{v:.1f}" if isinstance(v, float) else str(v) for v in row)
        for row in rows
    ]


def _cost(comparison: Comparison, looks: dict[str, charts.Style], by: str, unit: str) -> str:
    """The picture of the first screen."""
    spent, curve = charts.bytes_until(comparison.devices), sure.curve(comparison, by)
    paths = {
        arm: charts_cost.Path(
            [
                (spent.get((arm, int(r)), 0.0), worth)
                for r, worth in mine[["round", "mean"]].itertuples(index=False)
            ],
            sure.reached(comparison, arm, by).ends,
        )
        for arm in looks
        if len(mine := curve[curve["method"] == arm])
    }
    teacher = {
        sure.DRIFT: summary.drift_mean(comparison.teacher),
        sure.SOURCE: comparison.teacher.get("source"),
    }
    return charts_cost.cost_panel(paths, teacher.get(by), looks, TITLES[by], unit)


def _figures(comparison: Comparison, looks: dict[str, charts.Style]) -> dict[str, Any]:
    rounds, teacher = comparison.rounds, comparison.teacher
    tested = set(rounds[rounds["kind"] == "test"]["domain"])
    unit = task_of(comparison.index["config"]).shown
    domains = sorted(tested, key=lambda d: (d != "source", d))
    rows = comparison.methods.to_dict("records")
    lost = {
        r["method"]: tuple(r[k] for k in ("forgetting", "forgetting_low", "forgetting_high"))
        for r in rows
        if not pd.isna(r["forgetting"])
    }
    return {
        "domains": [charts.domain_panel(rounds, d, teacher.get(d), looks, unit) for d in domains],
        "prequential": charts.prequential_panel(rounds, looks, unit),
        "forgetting": charts.forgetting_panel(lost, looks),
    }


def chosen(pictures: pd.DataFrame, limit: int = PICTURES) -> list[dict[str, Any]]:
    """Up to `limit` samples of the first arm that sent some, evenly over the rounds, in their order."""
    if pictures.empty:
        return []
    mine = pictures[pictures["method"] == pictures["method"].iloc[0]]
    mine = mine.sort_values(["round", "device"], kind="stable")
    step = max(len(mine) / limit, 1.0)
    return [mine.iloc[int(i * step)].to_dict() for i in range(min(limit, len(mine)))]


def _picture(row: dict[str, Any]) -> dict[str, Any]:
    """A sample for the template: the picture as a data URL, kept and dropped cells as (x, y).

    There are no cells where the tokens do not lie as one square (side 0). Of a clip see `clip`.
    """
    if not isinstance(row["image"], bytes):
        return clip(row)
    side, kept = int(row["side"]), {int(p) for p in row["positions"]}
    cells = [(p % side, p // side, p in kept) for p in range(side * side)]
    return {
        **row,
        "frames": [],
        "url": url(row["image"]),
        "kept": [(x, y) for x, y, k in cells if k],
        "dropped": [(x, y) for x, y, k in cells if not k],
        "total": int(row.get("n_tokens", side * side)),
    }


def _failures(comparison: Comparison) -> pd.DataFrame:
    devices = comparison.devices
    return devices[devices["status"] != "ok"] if len(devices) else devices
