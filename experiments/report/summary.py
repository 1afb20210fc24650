"""From run folders to the numbers people quote: means over seeds, 95 % intervals, summary.json.

Definitions, also in README.md and docs/summary.schema.json:

- `acc_source`: test accuracy on domain "source" after the last round; `acc_drift`: the unweighted mean over
  the drifted domains; all in 0..1. `forgetting`: see `cdc_flower.results.forgetting`; negative = gained.
- `gap_closed`: (arm - lower) / (teacher - lower) on `acc_drift`, where lower is the first arm that adapts
  nothing (the student as shipped); null without such an arm, or where the teacher is not a point above it.
- bytes (counted) and FLOPs (of counts that devices claim): totals over all devices and rounds; every number
  is a mean over seeds.
- `ci95`: [low, high] from Student's t over seeds, null for one seed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cdc_flower import results
from cdc_flower.config import ConfigError, parse

MEASURES = (
    "acc_source",
    "acc_drift",
    "forgetting",
    "uplink_bytes",
    "downlink_bytes",
    "device_gflops",
    "cloud_gflops",
)
LEAST_GAP = 0.01  # a share of less than a point says nothing, and a teacher may be below the student
SUMMARY = "summary.json"
INDEX = "comparison.json"
INDEXED: dict[str, tuple[type, type | tuple[type, ...]]] = {
    "config": (dict, object),
    "data": (str, str),
    "methods": (list, str),
    "arms": (dict, dict),
    "seeds": (list, int),
    "teacher": (dict, (int, float)),
    "traits": (dict, dict),
    "versions": (dict, object),
    "status": (str, str),
    "failed": (dict, object),
    "host_seconds": (dict, (int, float)),
}
"""What every comparison.json holds: its kind, and that of all in it."""
READ, TRAITS = {"run.method", "run.devices"}, {"labels", "device_backprop", "adapts"}
# 97.5 % quantiles of Student's t for 1..30 degrees of freedom (any table, e.g. NIST/SEMATECH 1.3.6.7.2)
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Comparison:
    """Everything a comparison measured.

    Attributes:
        methods: one row per method: the measures of `MEASURES` with the `_low` and `_high` ends of their
            95 % intervals (NaN for one seed), gap_closed, labels, device_backprop, accuracy, runs, failures.
        runs: one row per run: method, seed, status, rounds_done, the measures, host seconds.
        rounds: rounds.parquet of all runs with method and seed; devices: the ledgers, likewise.
        metrics: metrics.parquet of all runs, likewise.
        pictures: samples that devices sent, with method and seed.
        personal: personal.parquet of all runs, likewise.
        retrieval: retrieval.parquet of all runs, likewise.
        summaries: summaries.parquet of all runs, likewise.
        teacher: domain -> accuracy; empty when it was not measured.
        teacher_on_stream: likewise, on rows that devices meet.
        items: domain -> number of held-out items.
        index: comparison.json: settings, methods, seeds, status, host seconds by stage, failed runs.
        out: the folder.
    """

    methods: pd.DataFrame
    runs: pd.DataFrame
    rounds: pd.DataFrame
    devices: pd.DataFrame
    metrics: pd.DataFrame
    pictures: pd.DataFrame
    personal: pd.DataFrame
    retrieval: pd.DataFrame
    summaries: pd.DataFrame
    teacher: dict[str, float]
    teacher_on_stream: dict[str, float]
    items: dict[str, int]
    index: dict[str, Any]
    out: Path

    @property
    def status(self) -> str:
        """`completed`, `interrupted` or `failed` (a run raised)."""
        return self.index["status"]


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % confidence interval of the mean by Student's t; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    quantile = T_975[n - 2] if n - 2 < len(T_975) else 1.96 + 2.42 / (n - 1)  # within 0.002
    mean, half = statistics.fmean(values), quantile * statistics.stdev(values) / n**0.5
    return mean - half, mean + half


def drift_mean(accuracy: Mapping[str, float]) -> float | None:
    """Unweighted mean over all domains but "source"; None when there is none."""
    drifted = [value for domain, value in accuracy.items() if domain != "source"]
    return statistics.fmean(drifted) if drifted else None


def paired(runs: pd.DataFrame, arm: str, other: str, measure: str) -> list[float]:
    """`arm` minus `other` in a measure, for each seed that has both."""
    mine, theirs = (runs[runs["method"] == name].set_index("seed")[measure].dropna() for name in (arm, other))
    return (mine - theirs).dropna().sort_index().tolist()


def moved(comparison: Comparison, arm: str) -> float:
    """Bytes of an arm both ways, of all devices in all rounds, mean over seeds."""
    row = comparison.methods.set_index("method").loc[arm]
    return float(row["uplink_bytes"] + row["downlink_bytes"])


def run_folder(out: Path, method: str, seed: int) -> Path:
    """Where the run of (method, seed) lives in a comparison folder."""
    return out / "runs" / f"{method}-{seed}"


def refuse_twice(folders: Sequence[Path]) -> None:
    """Refuse a folder that is named twice.

    Raises:
        ConfigError: names it.
    """
    there = [folder.resolve() for folder in folders]
    if twice := next((f for i, f in enumerate(folders) if there[i] in there[:i]), None):
        raise ConfigError(f"{twice}: given twice; allowed: each folder once")


def read(out: str | Path) -> Comparison:
    """Read a comparison folder, finished or not.

    Raises:
        ConfigError: the folder holds no comparison, or a file of it is damaged or missing.
    """
    out = Path(out)
    index = _index(out)
    rows, rounds, devices, metrics, pictures, personal, maps, found = [], [], [], [], [], [], [], []
    for method in index["methods"]:
        for seed in index["seeds"]:
            folder = run_folder(out, method, seed)
            if not (folder / "config.json").exists():
                continue
            result = results.read(folder)
            _refuse_without_tables(result)
            tag = {"method": method, "seed": seed}
            rows.append({**tag, "status": result.status, **_measure(result)})
            rounds.append(result.rounds.assign(**tag))
            devices.append(result.devices.assign(**tag))
            metrics.append(result.metrics.assign(**tag))
            pictures.append(result.pictures.assign(**tag))
            personal.append(result.personal.assign(**tag))
            found.append(result.retrieval.assign(**tag))
            maps.append(result.summaries.assign(**tag))
    columns = ["method", "seed", "status", "rounds_done", *MEASURES, "failures", "accuracy"]
    runs = pd.DataFrame(rows, columns=None if rows else columns)
    return Comparison(
        methods=_methods(runs, index),
        runs=runs,
        rounds=_stack(rounds),
        devices=_stack(devices),
        metrics=_stack(metrics),
        pictures=_stack(pictures),
        personal=_stack(personal),
        retrieval=_stack(found),
        summaries=_stack(maps),
        teacher=index["teacher"],
        teacher_on_stream=index.get("teacher_on_stream", {}),
        items=_items(rounds),
        index=index,
        out=out,
    )


def _index(out: Path) -> dict[str, Any]:
    """What comparison.json says, with everything in it that is read without asking whether it is there."""
    try:
        index = json.loads((out / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{out}: {INDEX} is missing; allowed: a folder written by compare") from None
    except (OSError, ValueError, RecursionError) as err:
        raise ConfigError(f"{out / INDEX}: cannot be read: {err}") from None
    told = index if isinstance(index, dict) else {}
    wrong = next((name for name, form in INDEXED.items() if not _fits(told.get(name), *form)), None)
    if wrong is None:
        asked = {"config": (told["config"], READ)}
        asked |= {f"traits of {arm}": (told["traits"].get(arm, {}), TRAITS) for arm in told["methods"]}
        wrong = next((name for name, (table, names) in asked.items() if names - set(table)), None)
    if wrong is not None:
        raise ConfigError(
            f"{out / INDEX}: '{wrong}' is missing or of another form; allowed: a file written by compare"
        )
    return told


def _fits(value: Any, kind: type, of: type | tuple[type, ...]) -> bool:
    """Whether a value is of a kind, and all in it of another."""
    inside = value.values() if isinstance(value, dict) else value
    return isinstance(value, kind) and all(isinstance(one, of) for one in inside)


def _refuse_without_tables(result: results.RunResult) -> None:
    """A run that has completed has its tables; without them it would count as one that measured nothing."""
    for name in results.ALWAYS:
        if result.status == "completed" and not (result.folder / name).is_file():
            raise ConfigError(
                f"{result.folder / name}: is missing, and the run has completed; allowed: all files of "
                "a run, or compare --resume, which makes it again"
            )


def _items(rounds: Sequence[pd.DataFrame]) -> dict[str, int]:
    """Domain -> number of held-out items, which are the same in all runs."""
    found: dict[str, int] = {}
    for frame in rounds:
        test = frame[frame["kind"] == "test"]
        found |= {str(d): int(n) for d, n in zip(test["domain"], test["n"], strict=True)}
    return found


def _stack(frames: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [f for f in frames if len(f)]
    if filled:
        return pd.concat(filled, ignore_index=True)
    return frames[0] if frames else pd.DataFrame()


def _measure(result: results.RunResult) -> dict[str, Any]:
    accuracy, total = results.final_accuracy(result.rounds), results.totals(result.devices)
    return {
        "rounds_done": max(result.rounds["round"].tolist(), default=0),
        "acc_source": accuracy.get("source"),
        "acc_drift": drift_mean(accuracy),
        "forgetting": results.forgetting(result.rounds),
        "uplink_bytes": total["uplink_bytes"],
        "downlink_bytes": total["downlink_bytes"],
        "device_gflops": total["device_flops"] / 1e9,
        "cloud_gflops": results.cloud_flops(result.metrics) / 1e9,
        "failures": total["failures"],
        "accuracy": accuracy,
        "host_seconds": result.run.get("host_seconds", {}),
        "wall_seconds": result.run.get("wall_seconds"),
    }


def _methods(runs: pd.DataFrame, index: Mapping[str, Any]) -> pd.DataFrame:
    """One row per method with at least one evaluated round."""
    rows = []
    for method in index["methods"]:
        mine = runs[(runs["method"] == method) & runs["acc_source"].notna()]
        if mine.empty:
            continue
        row: dict[str, Any] = {
            "method": method,
            **{trait: index["traits"][method][trait] for trait in ("labels", "device_backprop")},
            "runs": len(mine),
            "failures": sum(mine["failures"].tolist()),
        }
        for name in MEASURES:
            values = [float(v) for v in mine[name].tolist() if not pd.isna(v)]
            row[name] = statistics.fmean(values) if values else None
            row[f"{name}_low"], row[f"{name}_high"] = interval(values) or (None, None)
        domains = sorted({d for a in mine["accuracy"] for d in a}, key=lambda d: (d != "source", d))
        row["accuracy"] = {d: statistics.fmean([a[d] for a in mine["accuracy"] if d in a]) for d in domains}
        rows.append(row)
    columns = ["method", "labels", "device_backprop", "runs", "failures", *MEASURES, "gap_closed", "accuracy"]
    lower = next((r["acc_drift"] for r in rows if not index["traits"][r["method"]]["adapts"]), None)
    teacher = drift_mean(index["teacher"])
    gap = teacher - lower if teacher is not None and lower is not None else 0.0
    for row in rows:
        row["gap_closed"] = (row["acc_drift"] - lower) / gap if gap > LEAST_GAP else None
    return pd.DataFrame(rows, columns=None if rows else columns)


def summary(comparison: Comparison) -> dict[str, Any]:
    """The machine-readable summary (docs/summary.schema.json)."""
    from experiments.report import own, retrieval

    index, config = comparison.index, parse(comparison.index["config"])
    methods = {}
    for row in comparison.methods.to_dict("records"):
        one = {name: _number(row[name]) for name in MEASURES}
        for name in ("uplink_bytes", "downlink_bytes"):
            one[name] = round(row[name])
        ends = {name: [_number(row[f"{name}_low"]), _number(row[f"{name}_high"])] for name in MEASURES}
        methods[row["method"]] = {
            **one,
            "gap_closed": _number(row["gap_closed"]),
            "labels": bool(row["labels"]),
            "device_backprop": bool(row["device_backprop"]),
            "accuracy": row["accuracy"],
            "runs": int(row["runs"]),
            "failures": int(row["failures"]),
            "ci95": {name: None if end[0] is None else end for name, end in ends.items()},
        }
        if on_own := own.figures(comparison.personal, row["method"]):
            methods[row["method"]]["own"] = on_own
        if told := retrieval.told(comparison.retrieval, row["method"]):
            methods[row["method"]]["retrieval"] = told
    return {
        "teacher": _teacher(comparison.teacher),
        "teacher_on_stream": _teacher(comparison.teacher_on_stream),
        "items": comparison.items,
        "methods": methods,
        "rounds": config.run.rounds,
        "devices": config.run.devices,
        "seeds": len(index["seeds"]),
        "data": index["data"],
        "status": index["status"],
        "host_seconds": index["host_seconds"],
    }


def _teacher(accuracy: Mapping[str, float]) -> dict[str, Any]:
    return {
        "acc_source": accuracy.get("source"),
        "acc_drift": drift_mean(accuracy),
        "accuracy": dict(accuracy),
    }


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else round(float(value), 9)


def write_summary(comparison: Comparison) -> Path:
    """Write summary.json into the folder of the comparison, atomically; returns its path."""
    results.write_json(comparison.out / SUMMARY, summary(comparison))
    return comparison.out / SUMMARY
