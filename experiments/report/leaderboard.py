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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def problem_of(run: results.RunResult) -> dict[str, Any]:
    """What a run was asked to solve; a setting that its version did not have is taken at its default."""
    own = {k: v for k, v in flat(parse({})).items() if k.startswith(OF_PROBLEM) or k in OF_RUN}
    told = {k: run.config.get(k, v) for k, v in own.items() if k not in FREE}
    return told | {name: run.info.get(name, "") for name in ("data_digest", "pair_digest")}


def read(folder: Path) -> tuple[list[Row], dict[str, Any], str]:
    """The rows of a comparison, its problem, and one of its runs' folder.

    Raises:
        ConfigError: no comparison, none of its runs was completed, or its own runs solve different problems.
    """
    made, rows = summary.read(folder), []
    found: tuple[dict[str, Any], str] | None = None
    for name in made.index["methods"]:
        runs = _completed(made, name)
        if not runs:
            continue
        for run in runs:
            mine = problem_of(run), str(run.folder)
            found = found or mine
            _same(found, mine)
        rows.append(_row(made, name, runs))
    if found is None:
        raise ConfigError(f"{folder}: no run of it was completed; allowed: a comparison that has ended")
    return rows, *found


def _completed(made: summary.Comparison, name: str) -> list[results.RunResult]:
    seeds = made.runs[(made.runs["method"] == name) & (made.runs["status"] == "completed")]["seed"]
    return [results.read(summary.run_folder(made.out, name, seed)) for seed in seeds]


def _row(made: summary.Comparison, name: str, runs: Sequence[results.RunResult]) -> Row:
    accuracies = [results.final_accuracy(run.rounds) for run in runs]
    on_drift = [summary.drift_mean(found) for found in accuracies]
    judged = [d if d is not None else found["source"] for d, found in zip(on_drift, accuracies, strict=True)]
    sums = [results.totals(run.devices) for run in runs]
    ends = summary.interval(judged) or (None, None)
    settings = {k: v for k, v in runs[0].config.items() if k not in ("run.seed", "run.out-dir")}
    return Row(
        name=name,
        folder=str(made.out),
        accuracy=statistics.fmean(judged),
        low=ends[0],
        high=ends[1],
        source=statistics.fmean(found["source"] for found in accuracies),
        costs={
            "bytes": statistics.fmean(s["uplink_bytes"] + s["downlink_bytes"] for s in sums),
            "device_gflops": statistics.fmean(s["device_flops"] for s in sums) / 1e9,
            "device_seconds": _mean([s.get("work_seconds") for s in sums]),
            "joules": _mean([s.get("joules") for s in sums]),
        },
        labels=bool(made.index["traits"][name]["labels"]),
        seeds=len(runs),
        items=sum(made.items.values()),
        settings=digest_of(settings),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


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
        ConfigError: a folder that holds no comparison, or, without `apart`, a second problem.
    """
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
    marked = [Row(**{**vars(row), "front": not any(_beats(o, row) for o in rows)}) for row in rows]
    return sorted(marked, key=lambda row: (-row.accuracy, row.costs["bytes"] or 0.0, row.name))


def _beats(one: Row, other: Row) -> bool:
    """Whether one is nowhere worse than another, and somewhere better."""
    pairs = [(a, b) for a, b in ((one.costs[c], other.costs[c]) for c in COSTS) if None not in (a, b)]
    if one.accuracy < other.accuracy or any(a > b for a, b in pairs):  # type: ignore[operator]
        return False
    return one.accuracy > other.accuracy or any(a < b for a, b in pairs)  # type: ignore[operator]
