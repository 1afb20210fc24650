"""What a run leaves on disk, read and added up: one folder, readable at every moment of the run.

    config.json       resolved run config, seeds, processor and versions of packages, digests of pair and data
    rounds.parquet    round, domain, kind ("test" | "prequential"), accuracy, n
    metrics.parquet   round, name, value: whatever else a method measures (losses, counts)
    devices.parquet   the ledger: one row per device-task
    pictures.parquet  samples that devices sent, for looking at
    items.parquet     domain, worth: of each held-out answer in the last evaluation
    personal.parquet  round, device, user, domain, familiar, worth (sum), items: of each device's own held-out
                      answers, where `data.tested` is own
    retrieval.parquet round, device, user, familiar, way, rank, read: how far up the right clip or caption
                      stood, for pairs with a retrieval head; `read` names what the head read of the adapter
    summaries.parquet device, user, familiar, x, y: what a method knows of each device, as a map
    run.json          status, final accuracies, totals, digests, host seconds; absent in a killed run
    checkpoints/      the state after the last rounds, to resume from (cdc_flower.checkpoint)

It is written by `cdc_flower.run_folder`. Parquet and JSON alone: any tool
reads a run without this project. Round 0 is the state before any adaptation; the stream begins with round 1.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from cdc_flower import disk
from cdc_flower.config import ConfigError
from cdc_flower.processor import processor

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`: what is being done now and how far; in a run `done`, `total` are rounds."""

STATUSES = ("completed", "interrupted", "failed")
PACKAGES = ("cdc-flower", "flwr", "ray", "torch", "transformers", "peft", "bitsandbytes", "numpy", "pandas")
ALWAYS = ("rounds.parquet", "metrics.parquet", "devices.parquet")  # tables of every run
CLOUD_FLOPS = "cloud_flops"  # name in metrics.parquet: of each round
SUMMED = ("_bytes", "_seconds", "_joules")
ROUND_COLUMNS = {"round": "int64", "domain": "str", "kind": "str", "accuracy": "float64", "n": "int64"}
METRIC_COLUMNS = {"round": "int64", "name": "str", "value": "float64"}
DEVICE_COLUMNS = {
    "round": "int64",
    "device": "int64",
    "status": "str",
    "uplink_bytes": "int64",
    "downlink_bytes": "int64",
}
PERSONAL_COLUMNS = {
    "round": "int64",
    "device": "int64",
    "user": "str",
    "domain": "str",
    "familiar": "str",
    "worth": "float64",
    "items": "int64",
}
RETRIEVAL_COLUMNS = {
    "round": "int64",
    "device": "int64",
    "user": "str",
    "familiar": "str",
    "way": "str",
    "rank": "int64",
    "read": "str",
}
MEASURED = {"personal": PERSONAL_COLUMNS, "retrieval": RETRIEVAL_COLUMNS}
"""Tables that a run may add to in a round with an evaluation, by name."""
SUMMARY_COLUMNS = {"device": "int64", "user": "str", "familiar": "str", "x": "float64", "y": "float64"}
PICTURE_COLUMNS = (
    "image",
    "positions",
    "side",
    "question",
    "device_answer",
    "teacher_answer",
    "round",
    "device",
)


class ResultError(ConfigError):
    """A folder that holds no readable run; the message names the folder and the file."""


@dataclass(frozen=True)
class RunResult:
    """A run as read from its folder; frames of files never written are empty, with their columns."""

    folder: Path
    config: dict[str, Any]  # flat run config
    info: dict[str, Any]  # the rest of config.json: seeds, versions, digests
    status: str  # one of STATUSES; "interrupted" for a run that was killed
    run: dict[str, Any]  # run.json, {} for a run that was killed
    rounds: pd.DataFrame
    metrics: pd.DataFrame
    devices: pd.DataFrame
    pictures: pd.DataFrame
    personal: pd.DataFrame
    retrieval: pd.DataFrame
    summaries: pd.DataFrame


def provenance() -> dict[str, str]:
    """Versions of what decides the bits of a run: the processor, Python, the installed ones of `PACKAGES`."""
    found = {"processor": processor(), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path, value: Any) -> None:
    """Write `value` as strict JSON (no NaN), whole or not at all.

    Raises:
        DiskError: the disk does not take it.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    disk.replace(path, text.encode())


def frame_of(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a table of these columns and types, also where there is no row."""
    return pd.DataFrame(list(rows), columns=list(columns)).astype(dict(columns))


def final_accuracy(rounds: pd.DataFrame) -> dict[str, float]:
    """Domain -> test accuracy of the last evaluated round; {} when there was none."""
    test = rounds[rounds["kind"] == "test"]
    last = test[test["round"] == test["round"].max()]
    return {str(d): float(a) for d, a in zip(last["domain"], last["accuracy"], strict=True)}


def forgetting(rounds: pd.DataFrame, domain: str = "source") -> float | None:
    """Test accuracy on `domain` of the student as shipped (round 0) minus that after the last round.

    Returns:
        a signed change: what was lost, negative where accuracy was gained. None without evaluations.
    """
    test = rounds[(rounds["kind"] == "test") & (rounds["domain"] == domain)]
    in_order = sorted(zip(test["round"].tolist(), test["accuracy"].tolist(), strict=True))
    return in_order[0][1] - in_order[-1][1] if in_order else None


def cloud_flops(metrics: pd.DataFrame) -> float:
    """What the cloud computed in all rounds, as its charges count it (`metrics.parquet`)."""
    return float(metrics.loc[metrics["name"] == CLOUD_FLOPS, "value"].sum())


def totals(devices: pd.DataFrame) -> dict[str, float]:
    """Sums over all devices and rounds: ledger columns in bytes, FLOPs, s and J; tasks; failures."""
    summed = [c for c in devices.columns if c.startswith("flops_") or c.endswith(SUMMED)]
    sums: dict[str, float] = {c: sum(devices[c].tolist()) for c in summed}
    sums["device_flops"] = float(sum(v for c, v in sums.items() if c.startswith("flops_")))
    return {**sums, "tasks": len(devices), "failures": sum(s != "ok" for s in devices["status"])}


def read(path: str | Path) -> RunResult:
    """Read a run folder, finished or not.

    Raises:
        ResultError: no config.json there, or a file that cannot be read.
    """
    folder = Path(path)
    info = read_info(folder)
    run = _read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    return RunResult(
        folder=folder,
        config=info.pop("config"),
        info=info,
        status=run.get("status", "interrupted"),
        run=run,
        rounds=_read_frame(folder / "rounds.parquet", frame_of([], ROUND_COLUMNS)),
        metrics=_read_frame(folder / "metrics.parquet", frame_of([], METRIC_COLUMNS)),
        devices=_read_frame(folder / "devices.parquet", frame_of([], DEVICE_COLUMNS)),
        pictures=_read_frame(folder / "pictures.parquet", pd.DataFrame(columns=list(PICTURE_COLUMNS))),
        **{name: _read_frame(folder / f"{name}.parquet", frame_of([], of)) for name, of in MEASURED.items()},
        summaries=_read_frame(folder / "summaries.parquet", frame_of([], SUMMARY_COLUMNS)),
    )


def read_items(path: str | Path) -> pd.DataFrame:
    """The held-out items of a run's last evaluation: `domain` and `worth` of each, in their order.

    Raises:
        ResultError: the file is missing or cannot be read.
    """
    file = Path(path) / "items.parquet"
    if not file.exists():
        raise ResultError(f"{path}: items.parquet is missing; allowed: a folder of a run that was evaluated")
    return _read_frame(file, pd.DataFrame(columns=["domain", "worth"]))


def read_to_resume(path: str | Path) -> RunResult:
    """A run folder of which only config.json must be readable: a checkpoint holds the tables, too.

    Returns:
        the run; where its run.json or a table is damaged or missing, as one that was killed, without tables.

    Raises:
        ResultError: no config.json there, or one that cannot be read.
    """
    folder = Path(path)
    with suppress(ResultError):
        found = read(folder)
        if found.status != "completed" or all((folder / name).is_file() for name in ALWAYS):
            return found
    info = read_info(folder)
    empty = (pd.DataFrame() for _ in range(7))
    return RunResult(folder, info.pop("config"), info, "interrupted", {}, *empty)


def read_info(folder: Path) -> dict[str, Any]:
    """What config.json of a run says: `config`, the flat run config, and what else decided the run.

    Raises:
        ResultError: it is missing, or cannot be read.
    """
    info = _read_json(folder / "config.json")
    if not isinstance(info.get("config"), dict):
        raise ResultError(f"{folder / 'config.json'}: no run config in it; allowed: a folder a run wrote")
    return info


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{path.parent}: {path.name} is missing; allowed: a folder a run wrote") from None
    except (OSError, ValueError) as err:
        raise ResultError(f"{path}: cannot be read: {err}") from None
    if not isinstance(value, dict):
        raise ResultError(f"{path}: a JSON object is expected")
    return value


def _read_frame(path: Path, empty: pd.DataFrame) -> pd.DataFrame:
    if not path.exists():
        return empty
    try:
        found = pd.read_parquet(path)
    except Exception as err:  # whatever is in there
        raise ResultError(f"{path}: cannot be read: {' '.join(str(err).split())}") from None
    if lacks := [column for column in empty.columns if column not in found.columns]:
        raise ResultError(f"{path}: it lacks the columns {', '.join(lacks)}")
    return found
