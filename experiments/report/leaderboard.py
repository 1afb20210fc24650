"""Results of several comparisons in one table: accuracy against bytes, device compute, seconds and energy.

A row is an arm of a comparison (its runs, one a seed). Rows stand beside each other only where they solve one
problem: the same data and pair, by digest, and the same settings of data, drift, fleet, devices and rounds.
What else differs is the method's business.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cdc_flower import results
from cdc_flower.config import ConfigError, flat, parse
from experiments.report import summary

OF_PROBLEM = ("data.", "drift.", "fleet.")
OF_RUN = ("run.devices", "run.rounds", "run.samples-per-round", "run.cohort")
FREE = ("data.pack",)  # a folder's path; its content is in the digest
COSTS = ("bytes", "device_gflops", "device_seconds", "joules")
"""What a row may cost; seconds and joules need virtual time, None without it."""


@dataclass(frozen=True)
class Row:
    """An arm of one comparison.

    Attributes:
        name: of the arm.
        folder: of the comparison.
        accuracy: mean over seeds on the drifted domains, on the source where nothing drifts, 0..1.
        low, high: ends of its 95 % interval over seeds; None for one seed.
        source: likewise on the source.
        costs: see `COSTS`; means over seeds.
        labels: devices learn from true answers.
        seeds: how many runs.
        items: held-out items.
        settings: digest of all settings of the arm.
        front: no other row is as accurate and costs no more in anything that is known of both.
    """

    name: str
    folder: str
    accuracy: float
    low: float | None
    high: float | None
    source: float | None
    costs: Mapping[str, float | None]
    labels: bool
    seeds: int
    items: int
    settings: str
    front: bool = False


@dataclass(frozen=True)
class Board:
    """Rows of one problem, the most accurate first.

    Attributes:
        problem: what all rows share: settings, and digests of data and pair.
        rows: see `Row`.
    """

    problem: Mapping[str, Any]
    rows: Sequence[Row]

    @property
    def digest(self) -> str:
        """Twelve letters that name the problem."""
        return digest_of(self.problem)


def digest_of(value: Mapping[str, Any]) -> str:
    """Twelve letters that name some settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def problem_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was asked to solve; a setting that its version did not have is taken at its default."""
    own = {k: v for k, v in flat(parse({})).items() if k.startswith(OF_PROBLEM) or k in OF_RUN}
    told = {k: info["config"].get(k, v) for k, v in own.items() if k not in FREE}
    return told | {name: info.get(name, "") for name in ("data_digest", "pair_digest")}


def read(folder: Path) -> tuple[list[Row], dict[str, Any], str]:
    """The rows of a comparison, its problem, and one of its runs' folder.

    Raises:
        ConfigError: no comparison, none of its runs was completed, or its own runs solve different problems.
    """
    made, rows = summary.read(folder), []
    found: tuple[dict[str, Any], str] | None = None
    for name, runs in made.runs[made.runs["status"] == "completed"].groupby("method", sort=False):
        folders = [summary.run_folder(made.out, str(name), seed) for seed in runs["seed"]]
        told = [results.read_info(one) for one in folders]
        for info, where in zip(told, folders, strict=True):
            mine = problem_of(info), str(where)
            found = found or mine
            _same(found, mine)
        rows.append(_row(made, str(name), runs, told[0]["config"]))
    if found is None:
        raise ConfigError(f"{folder}: no run of it was completed; allowed: a comparison that has ended")
    return rows, *found


def _row(made: summary.Comparison, name: str, runs: pd.DataFrame, config: Mapping[str, Any]) -> Row:
    judged = runs["acc_drift"].fillna(runs["acc_source"]).astype(float).tolist()
    tasks = made.devices[(made.devices["method"] == name) & made.devices["seed"].isin(runs["seed"])]
    ends = summary.interval(judged) or (None, None)
    settings = {k: v for k, v in config.items() if k not in ("run.seed", "run.out-dir")}
    return Row(
        name=name,
        folder=str(made.out),
        accuracy=statistics.fmean(judged),
        low=ends[0],
        high=ends[1],
        source=float(runs["acc_source"].mean()),
        costs={
            "bytes": float((runs["uplink_bytes"] + runs["downlink_bytes"]).mean()),
            "device_gflops": float(runs["device_gflops"].mean()),
            "device_seconds": _a_run(tasks, "work_seconds", len(runs)),
            "joules": _a_run(tasks, "joules", len(runs)),
        },
        labels=bool(made.index["traits"][name]["labels"]),
        seeds=len(runs),
        items=sum(made.items.values()),
        settings=digest_of(settings),
    )


def _a_run(tasks: pd.DataFrame, column: str, runs: int) -> float | None:
    """The mean over runs of a column's sum over device-tasks; None where a run lacks it."""
    known = column in tasks and not tasks.groupby("seed")[column].count().eq(0).any()
    return float(tasks[column].sum()) / runs if known and len(tasks) else None


def _same(one: tuple[Mapping[str, Any], str], other: tuple[Mapping[str, Any], str]) -> None:
    """Refuse two runs that solve different problems, naming what differs first."""
    for key in sorted({*one[0], *other[0]}):
        a, b = one[0].get(key), other[0].get(key)
        if a != b:
            raise ConfigError(
                f"'{key}' is {a!r} in {one[1]} and {b!r} in {other[1]}: their rows cannot be compared; "
                "allowed: results of one problem, or the option --apart for a table each"
            )


def boards(folders: Sequence[Path], *, apart: bool = False) -> list[Board]:
    """A board for each problem that is found, in the order of the folders.

    Args:
        folders: of comparisons.
        apart: several problems are allowed.

    Raises:
        ConfigError: a folder twice, one that holds no comparison, or, without `apart`, a second problem.
    """
    summary.refuse_twice(folders)
    grouped: dict[str, tuple[dict[str, Any], str, list[Row]]] = {}
    for folder in folders:
        rows, problem, where = read(folder)
        first = next(iter(grouped.values()), None)
        if first is not None and not apart:
            _same(first[:2], (problem, where))
        grouped.setdefault(digest_of(problem), (problem, where, []))[2].extend(rows)
    return [Board(problem, ranked(rows)) for problem, _, rows in grouped.values()]


def ranked(rows: Sequence[Row]) -> list[Row]:
    """The most accurate first, with the front marked."""
    marked = [replace(row, front=not any(_beats(other, row) for other in rows)) for row in rows]
    return sorted(marked, key=lambda row: (-row.accuracy, row.costs["bytes"] or 0.0, row.name))


def _beats(one: Row, other: Row) -> bool:
    """Whether one is nowhere worse than another, and somewhere better."""
    pairs = [(a, b) for a, b in ((one.costs[c], other.costs[c]) for c in COSTS) if None not in (a, b)]
    if one.accuracy < other.accuracy or any(a > b for a, b in pairs):  # type: ignore[operator]
        return False
    return one.accuracy > other.accuracy or any(a < b for a, b in pairs)  # type: ignore[operator]
