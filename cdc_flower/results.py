"""What a run leaves on disk: one folder, readable at every moment of the run.

    config.json       resolved run config, seeds, versions of packages, digests of pair and data
    rounds.parquet    round, domain, kind ("test" | "prequential"), accuracy, n
    metrics.parquet   round, name, value: whatever else a method measures (losses, counts)
    devices.parquet   the ledger: one row per device-task
    pictures.parquet  samples that devices sent, for looking at
    run.json          status, final accuracies, totals, digests, host seconds; absent in a killed run
    checkpoints/      the state after the last rounds, to resume from (cdc_flower.checkpoint)

Every file is written beside its name and moved over it (`os.replace`), so a killed run leaves the last
complete round, never half a file. A checkpoint holds the tables, too, and a run that resumes writes them from
it: tables and state are then of the same round, whatever was written last. Parquet and JSON alone: any tool
reads a run without this project. Round 0 is the state before any adaptation; the stream begins with round 1.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from cdc_flower.config import Config, ConfigError, flat

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`: what is being done now and how far; in a run `done`, `total` are rounds."""

FILES = (
    "config.json",
    "rounds.parquet",
    "metrics.parquet",
    "devices.parquet",
    "pictures.parquet",
    "run.json",
)
STATUSES = ("completed", "interrupted", "failed")
PACKAGES = ("cdc-flower", "flwr", "ray", "torch", "transformers", "peft", "bitsandbytes", "numpy", "pandas")
CHECKPOINTS = "checkpoints"
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


def package_versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run: Python and the installed packages of `PACKAGES`."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path, value: Any) -> None:
    """Atomically write `value` as strict JSON (no NaN)."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _replace(path, lambda temp: temp.write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temp)
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def _frame(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns)).astype(dict(columns))


def _parquet(frame: pd.DataFrame) -> bytes:
    data = io.BytesIO()
    frame.to_parquet(data, index=False)
    return data.getvalue()


def _rows(parquet: bytes) -> list[dict[str, Any]]:
    return [
        {str(k): v for k, v in row.items()} for row in pd.read_parquet(io.BytesIO(parquet)).to_dict("records")
    ]


class RunFolder:
    """The writer of a run folder. Made by the ServerApp; every call leaves the folder complete and readable.

    Args:
        path: the folder; made when absent. Files of an earlier run in it are removed by `begin`.

    Attributes:
        stage_seconds: host seconds by stage, added to with `+=` or with `stage`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.stage_seconds: dict[str, float] = defaultdict(float)
        self._rounds: dict[tuple[int, str, str], dict[str, Any]] = {}
        self._metrics: dict[tuple[int, str], dict[str, Any]] = {}
        self._pictures: list[dict[str, Any]] = []
        self._devices = _frame([], DEVICE_COLUMNS)
        self._ledger_digest: str | None = None
        self._started = time.perf_counter()
        self._seconds_before = 0.0  # wall seconds of the run before it resumed

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    def begin(
        self,
        config: Config,
        versions: Mapping[str, str],
        extra: Mapping[str, Any],
        resumed: tuple[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Write config.json and clear what an earlier run left, or go on with it.

        Args:
            config: the resolved config of the run.
            versions: package -> version, see `package_versions`.
            extra: more facts that decide the numbers: `pair_digest`, `data_digest`, `engine`.
            resumed: the round after which an earlier run goes on, and the `state()` of its folder then.

        Raises:
            ConfigError: the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConfigError(
                f"setting 'run.out-dir' = {str(self.path)!r}: {err.strerror}; allowed: a folder "
                "that can be written"
            ) from None
        if resumed is None:
            for name in FILES:  # config.json first: from here on the folder is no run
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        else:
            (self.path / "run.json").unlink(missing_ok=True)
            self.load(resumed[1])
        write_json(
            self.path / "config.json",
            {"config": flat(config), "seeds": {"run": config.run.seed}, "versions": dict(versions), **extra},
        )

    def state(self) -> dict[str, Any]:
        """The tables as Parquet, and the seconds so far; the ledger's owner saves it."""
        return {
            "rounds": _parquet(_frame(self._rounds.values(), ROUND_COLUMNS)),
            "metrics": _parquet(_frame(self._metrics.values(), METRIC_COLUMNS)),
            "pictures": _parquet(pd.DataFrame(self._pictures)) if self._pictures else b"",
            "stage_seconds": json.dumps(self.stage_seconds),
            "wall_seconds": self._wall(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken; the tables on disk become those of then."""
        rounds, metrics = (_rows(state[name]) for name in ("rounds", "metrics"))
        self._rounds = {(r["round"], r["domain"], r["kind"]): r for r in rounds}
        self._metrics = {(r["round"], r["name"]): r for r in metrics}
        self._pictures = []
        (self.path / "pictures.parquet").unlink(missing_ok=True)
        self.pictures(_rows(state["pictures"]) if state["pictures"] else [])
        self._write_rounds()
        for stage, seconds in json.loads(state["stage_seconds"]).items():
            self.stage_seconds[stage] += seconds
        self._seconds_before = float(state["wall_seconds"])

    def _wall(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def round(
        self,
        round: int,
        accuracy: Mapping[str, float] | None,
        prequential: Mapping[str, tuple[int, int]],
        metrics: Mapping[str, float],
        test_items: Mapping[str, int] | None = None,
    ) -> None:
        """Add what was measured in a round; a round given twice is replaced.

        Args:
            round: 0 before any adaptation, then 1..R.
            accuracy: domain -> held-out test accuracy in 0..1; None in rounds without an evaluation.
            prequential: domain -> (correct, answered) on the stream in this round; empty in round 0.
            metrics: anything else, e.g. losses and counts.
            test_items: domain -> number of test items behind `accuracy`; unknown = 0.
        """
        for domain, value in (accuracy or {}).items():
            self._add_round(round, domain, "test", float(value), (test_items or {}).get(domain, 0))
        for domain, (correct, total) in prequential.items():
            if total:
                self._add_round(round, domain, "prequential", correct / total, total)
        for name, value in metrics.items():
            self._metrics[round, name] = {"round": round, "name": name, "value": float(value)}
        self._write_rounds()

    def _add_round(self, at: int, domain: str, kind: str, accuracy: float, n: int) -> None:
        if not 0.0 <= accuracy <= 1.0:
            raise ValueError(f"accuracy of {kind} domain {domain} in round {at} is {accuracy}, not in 0..1")
        self._rounds[at, domain, kind] = {
            "round": at,
            "domain": domain,
            "kind": kind,
            "accuracy": accuracy,
            "n": int(n),
        }

    def devices(self, ledger: pd.DataFrame, digest: str | None = None) -> None:
        """Write the whole ledger so far (`Ledger.frame()`); `digest` (`Ledger.digest()`) goes to run.json."""
        missing = [c for c in DEVICE_COLUMNS if c not in ledger.columns]
        if missing:
            raise ValueError(f"ledger frame lacks the columns {', '.join(missing)}")
        self._devices, self._ledger_digest = ledger, digest
        self._write_frame("devices.parquet", ledger)

    def pictures(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """Add samples to look at.

        Args:
            samples: mappings with `image` (PNG bytes), `positions` (kept token places, row-major), `side`
                (tokens per row of the grid), `question`, `device_answer`, `teacher_answer`, `round`,
                `device`; further keys are kept.
        """
        for sample in samples:
            missing = [c for c in PICTURE_COLUMNS if c not in sample]
            if missing:
                raise ValueError(f"picture lacks {', '.join(missing)}")
            self._pictures.append({**sample, "positions": [int(p) for p in sample["positions"]]})
        if self._pictures:
            self._write_frame("pictures.parquet", pd.DataFrame(self._pictures))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the host seconds of a `with` block to `stage_seconds[name]`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds[name] += time.perf_counter() - began

    def finish(self, status: str, adapter_digest: str | None = None) -> None:
        """Write run.json.

        Args:
            status: one of `STATUSES`.
            adapter_digest: sha256 hex of the adapter after the last round.
        """
        if status not in STATUSES:
            raise ValueError(f"status {status!r}; allowed: {', '.join(STATUSES)}")
        rounds = _frame(self._rounds.values(), ROUND_COLUMNS)
        write_json(
            self.path / "run.json",
            {
                "status": status,
                "rounds_done": max(rounds["round"].tolist(), default=0),
                "accuracy": final_accuracy(rounds),
                "forgetting": forgetting(rounds),
                "totals": totals(self._devices),
                "ledger_digest": self._ledger_digest,
                "adapter_digest": adapter_digest,
                "host_seconds": {k: round(v, 3) for k, v in self.stage_seconds.items()},
                "wall_seconds": round(self._wall(), 3),
            },
        )

    def _write_rounds(self) -> None:
        self._write_frame("rounds.parquet", _frame(self._rounds.values(), ROUND_COLUMNS))
        self._write_frame("metrics.parquet", _frame(self._metrics.values(), METRIC_COLUMNS))

    def _write_frame(self, name: str, frame: pd.DataFrame) -> None:
        _replace(self.path / name, lambda temp: frame.to_parquet(temp, index=False))


def final_accuracy(rounds: pd.DataFrame) -> dict[str, float]:
    """Domain -> test accuracy of the last evaluated round; {} when there was none."""
    test = rounds[rounds["kind"] == "test"]
    last = test[test["round"] == test["round"].max()]
    return {str(d): float(a) for d, a in zip(last["domain"], last["accuracy"], strict=True)}


def forgetting(rounds: pd.DataFrame, domain: str = "source") -> float | None:
    """Best test accuracy on `domain` of any evaluated round (round 0 included) minus that of the last.

    Returns:
        a number in 0..1, never negative: a run that ends at its best has forgotten nothing. None without
        evaluations.
    """
    test = rounds[(rounds["kind"] == "test") & (rounds["domain"] == domain)]
    in_order = sorted(zip(test["round"].tolist(), test["accuracy"].tolist(), strict=True))
    return max(a for _, a in in_order) - in_order[-1][1] if in_order else None


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
    info = _read_json(folder / "config.json")
    if not isinstance(info.get("config"), dict):
        raise ResultError(f"{folder / 'config.json'}: no run config in it; allowed: a folder a run wrote")
    run = _read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    return RunResult(
        folder=folder,
        config=info.pop("config"),
        info=info,
        status=run.get("status", "interrupted"),
        run=run,
        rounds=_read_frame(folder / "rounds.parquet", _frame([], ROUND_COLUMNS)),
        metrics=_read_frame(folder / "metrics.parquet", _frame([], METRIC_COLUMNS)),
        devices=_read_frame(folder / "devices.parquet", _frame([], DEVICE_COLUMNS)),
        pictures=_read_frame(folder / "pictures.parquet", pd.DataFrame(columns=list(PICTURE_COLUMNS))),
    )


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
        return pd.read_parquet(path)
    except (OSError, ValueError) as err:
        raise ResultError(f"{path}: cannot be read: {err}") from None
