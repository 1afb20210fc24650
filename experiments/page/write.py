"""What the page leaves: `page.json` and figures in a folder, tables beside the cells and between marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdc_flower import disk, results
from cdc_flower.config import ConfigError
from experiments.page import numbers, tables
from experiments.page.numbers import Figures, Row
from experiments.page.plan import Part, Plan
from experiments.report.amounts import size

JSON = "page.json"
LISTS = {"ladder": "ladder", "crossing": "crossing", "budget": "uplink_at_budget", "table": "further"}
SEEN = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def page(plan: Plan, figures: Figures) -> dict[str, Any]:
    """The machine-readable page (docs/page.schema.json)."""
    data: dict[str, Any] = {}
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in LISTS.values()}
    for part in plan.parts.values():
        for name in part.data:
            if part.kind == "main":
                of = numbers.teacher(part, name, figures)
                data[name] = {
                    "methods": {row.label: _method(row) for row in numbers.rows(part, name, figures)},
                    "teacher_on_stream": None if of is None else _round(of.on_stream),
                    "teacher_on_test": None if of is None else _round(of.on_test),
                }
            else:
                lists[LISTS[part.kind]] += _listed(part, name, figures)
    missing = [cell.name for cell in plan.cells() if cell.path not in figures]
    return {"data": data, **lists, "missing": missing, "skipped": dict(plan.skipped)}


def _listed(part: Part, data: str, figures: Figures) -> list[dict[str, Any]]:
    """One entry an arm, and in a crossing one a pair, too."""
    found = []
    for pair in part.pairs[data] if part.kind == "crossing" else (None,):
        of = numbers.teacher(part, data, figures, pair)
        for row in numbers.rows(part, data, figures, pair=pair):
            found.append(
                {
                    "part": part.name,
                    "data": data,
                    "arm": row.label,
                    "variant": part.variants[row.label],
                    "pair": row.pair,
                    "teacher_on_stream": None if of is None else _round(of.on_stream),
                    **_method(row),
                }
            )
    return found


def _method(row: Row) -> dict[str, Any]:
    counts = {
        name: None if value is None else round(value) if name.endswith("_bytes") else _round(value)
        for name, value in row.counts.items()
    }
    return {
        "labels": row.labels,
        "device_backprop": row.device_backprop,
        "acc_source": _round(row.acc_source),
        "acc_drift": _round(row.acc_drift),
        "acc_drift_ci": _ends(row.drift_ci),
        "acc_drift_items_ci": _ends(row.drift_items_ci),
        "forgetting": _round(row.forgetting),
        "forgetting_ci": _ends(row.forgetting_ci),
        "gap_closed": _round(row.gap_closed),
        "compared_with": row.to,
        "difference": _round(row.difference),
        "difference_ci": _ends(row.difference_ci),
        "difference_items_ci": _ends(row.difference_items_ci),
        **counts,
        "seeds": row.seeds,
        "items": row.items,
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _ends(ci: tuple[float, float] | None) -> list[float] | None:
    return None if ci is None else [round(ci[0], 6), round(ci[1], 6)]


def write(plan: Plan, folder: Path, out: Path, documents: bool = False) -> list[Path]:
    """Write everything that the cells in a folder of results give; the paths of what was written.

    Args:
        plan: the page.
        folder: of results: the tables go there.
        out: for `page.json` and figures.
        documents: tables go between the marks of documents beside and above `folder`, too.

    Raises:
        ConfigError: a document with a mark that names nothing.
        DiskError: the disk does not take a file.
    """
    figures = numbers.load(folder, plan)
    made = tables.blocks(plan, figures)
    for path in (out, folder):
        path.mkdir(parents=True, exist_ok=True)
    results.write_json(out / JSON, page(plan, figures))
    texts = {folder / name: text for name, text in tables.documents(plan, made).items()}
    for path in tables.marked(folder) if documents else ():
        try:
            texts[path] = tables.filled(path.read_text(encoding="utf-8"), made)
        except ValueError as err:
            raise ConfigError(f"{path}: {err}") from None
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            disk.replace(path, text.encode())
    return [out / JSON, *texts, *_charts(plan, figures, out)]


def _charts(plan: Plan, figures: Figures, out: Path) -> list[Path]:
    """A figure for each crossing and each set of budgets that has points."""
    found = []
    for part in plan.parts.values():
        for data in part.data if part.kind in ("crossing", "budget") else ():
            lines, levels = _lines(part, data, figures)
            if lines:
                what = "teacher's accuracy on the stream" if part.kind == "crossing" else "up, all devices"
                title = f"{part.title}: {data}"
                found.append(_draw(out / f"{part.name}-{data}.png", lines, levels, what, title))
    return found


Lines = dict[str, list[tuple[float, Row]]]
"""Arm -> its rows by what is drawn across, in order."""


def _lines(part: Part, data: str, figures: Figures) -> tuple[Lines, dict[str, Row]]:
    if part.kind == "crossing":
        first = numbers.rows(part, data, figures, pair=part.pairs[data][0])
        taught = [arm for arm in part.arms if part.plain[arm] not in part.once]
        curves = {arm: numbers.curve(part, data, figures, arm) for arm in taught}
        levels = {row.label: row for row in first if part.plain[row.label] in part.once}
    else:
        curves, levels = Lines(), {}
        for row in numbers.rows(part, data, figures):
            curves.setdefault(part.plain[row.label], []).append((row.counts["uplink_bytes"] or 0.0, row))
    return {arm: sorted(points, key=lambda of: of[0]) for arm, points in curves.items() if points}, levels


def _within(row: Row) -> tuple[float, float]:
    """Points below and above an accuracy, to the ends of its interval over seeds; nothing for one seed."""
    low, high = row.drift_ci or (row.acc_drift, row.acc_drift)
    return 100 * (row.acc_drift - low), 100 * (high - row.acc_drift)


def _draw(path: Path, lines: Lines, levels: Mapping[str, Row], what: str, title: str) -> Path:
    """Points with 95 % intervals over seeds, where there are several; levels as dashed lines with a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    share = what.startswith("teacher")
    if not share:
        at = [bytes_ for bytes_, _ in max(lines.values(), key=len)]  # of the arm that has most
        axes.set_xscale("log")
        axes.set_xticks(at, [size(bytes_) for bytes_ in at])
        axes.minorticks_off()
    for i, (arm, points) in enumerate(lines.items()):
        across = [100 * x if share else x for x, _ in points]
        ys, around = [100 * row.acc_drift for _, row in points], [_within(row) for _, row in points]
        apart = [list(of) for of in zip(*around, strict=True)]
        axes.errorbar(across, ys, apart, fmt="o-", capsize=2, color=SEEN[i % len(SEEN)], label=arm)
    for i, (arm, row) in enumerate(levels.items(), len(lines)):
        level, (below, above), color = 100 * row.acc_drift, _within(row), SEEN[i % len(SEEN)]
        axes.axhline(level, linestyle="--", color=color, label=arm)
        axes.axhspan(level - below, level + above, color=color, alpha=0.1, linewidth=0)
    axes.set_xlabel(f"{what} [%]" if share else what)
    axes.set_ylabel("accuracy on drift [%]")
    axes.set_title(title, fontsize="medium")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    return path
