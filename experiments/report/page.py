"""report.html of a comparison: one file, no scripts, nothing fetched, made from what lies in the folder.

It is made at the end of `compare`, also when that was interrupted, and again by `cdc-flower report FOLDER`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cdc_flower import disk
from cdc_flower.tasks import task_of
from experiments.report import charts, charts_fleet, charts_personal, own, retrieval, summary, terminal
from experiments.report.clip import clip, url
from experiments.report.notes import notes, subject
from experiments.report.summary import Comparison

REPORT = "report.html"
PICTURES = 12
FAILURES = 40


def write(folder: str | Path) -> Path:
    """Write report.html into a comparison folder; returns its path.

    Raises:
        ConfigError: the folder holds no comparison.
        DiskError: the disk does not take it.
    """
    comparison = summary.read(folder)
    path = comparison.out / REPORT
    disk.replace(path, render(comparison).encode())
    return path


def render(comparison: Comparison) -> str:
    """The page as text."""
    index = comparison.index
    evaluated, unit = set(comparison.methods["method"]), task_of(index["config"]).shown
    looks = {arm: look for arm, look in charts.styles(index["methods"]).items() if arm in evaluated}
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("report.html.j2").render(
        index=index,
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
        runs=comparison.runs.to_dict("records"),
        failures=_failures(comparison)[:FAILURES],
        failure_count=len(_failures(comparison)),
    )


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
        "bytes": charts.bytes_panel(rounds, comparison.devices, looks, unit) if tested - {"source"} else "",
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


def _failures(comparison: Comparison) -> list[dict[str, Any]]:
    devices = comparison.devices
    return devices[devices["status"] != "ok"].to_dict("records") if len(devices) else []
