"""The writer of a run folder (see `cdc_flower.results` for what is in one).

Every file is written beside its name and moved over it (`cdc_flower.disk`), so a killed run or a full disk
leaves the last complete round, never half a file. A checkpoint holds the tables, too, and a run that resumes
writes them from it: tables and state are then of the same round, whatever was written last.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cdc_flower import disk
from cdc_flower.config import Config, ConfigError, flat
from cdc_flower.fleet import named_files
from cdc_flower.results import (
    CLOUD_FLOPS,
    DEVICE_COLUMNS,
    MEASURED,
    METRIC_COLUMNS,
    PICTURE_COLUMNS,
    ROUND_COLUMNS,
    STATUSES,
    cloud_flops,
    final_accuracy,
    forgetting,
    frame_of,
    totals,
    write_json,
)

FILES = (
    "config.json",
    "rounds.parquet",
    "metrics.parquet",
    "devices.parquet",
    "pictures.parquet",
    "items.parquet",
    *(f"{name}.parquet" for name in MEASURED),
    "summaries.parquet",
    "run.json",
)
CHECKPOINTS = "checkpoints"
NAMED = "named_files"
"""What config.json calls the digests of the files that settings name."""
PARTS = "parts"
"""Folder of the tables of earlier rounds, in a run without end."""
MLFLOW, WANDB, TENSORBOARD = "mlflow-run", "wandb-run", "tensorboard"
"""What trackers keep of a run: as what MLflow and Weights & Biases know it, and TensorBoard's folder."""


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
        stream: what run.json says of the rows that devices meet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.stage_seconds: dict[str, float] = defaultdict(float)
        self.stream: Mapping[str, float] = {}
        self._rounds: dict[tuple[int, str, str], dict[str, Any]] = {}
        self._metrics: dict[tuple[int, str], dict[str, Any]] = {}
        self._pictures: list[dict[str, Any]] = []
        self._measured = {name: frame_of([], columns) for name, columns in MEASURED.items()}
        self._devices = frame_of([], DEVICE_COLUMNS)
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
            versions: package -> version, see `results.provenance`.
            extra: more facts that decide the numbers: `pair_digest`, `data_digest`, `engine`.
            resumed: the round after which an earlier run goes on, and the `state()` of its folder then.

        Raises:
            ConfigError: the folder cannot be made.
            DiskError: the disk does not take the files.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConfigError(
                f"setting 'run.out-dir' = {str(self.path)!r}: {err.strerror}; allowed: a folder "
                "that can be written"
            ) from None
        with disk.writing(self.path):
            for part in self.path.glob(f".*{disk.PART}"):  # of a killed process
                part.unlink(missing_ok=True)
            if resumed is None:
                for name in (*FILES, MLFLOW, WANDB):  # config.json first: from here on the folder is no run
                    (self.path / name).unlink(missing_ok=True)
                for folder in (self.checkpoints, self.path / PARTS, self.path / TENSORBOARD):
                    shutil.rmtree(folder, ignore_errors=True)
            else:
                (self.path / "run.json").unlink(missing_ok=True)
        if resumed is not None:
            self.load(resumed[1])
        files = named_files.digests(config.fleet)
        said = {
            "seeds": {"run": config.run.seed},
            "versions": dict(versions),
            **({NAMED: files} if files else {}),
        }
        write_json(self.path / "config.json", {"config": flat(config), **said, **extra})

    def state(self) -> dict[str, Any]:
        """The tables as Parquet, and the seconds so far; the ledger's owner saves it."""
        return {
            "rounds": _parquet(frame_of(self._rounds.values(), ROUND_COLUMNS)),
            "metrics": _parquet(frame_of(self._metrics.values(), METRIC_COLUMNS)),
            "pictures": _parquet(pd.DataFrame(self._pictures)) if self._pictures else b"",
            **{name: _parquet(rows) if len(rows) else b"" for name, rows in self._measured.items()},
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
        for name, columns in MEASURED.items():
            (self.path / f"{name}.parquet").unlink(missing_ok=True)
            self._measured[name] = frame_of([], columns)
            if state.get(name):
                self.measured(name, pd.read_parquet(io.BytesIO(state[name])))
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
        prequential: Mapping[str, tuple[float, int]],
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

    def items(self, domains: Sequence[str], worth: np.ndarray) -> None:
        """Write what each held-out answer of the newest evaluation was worth, in the order of the items.

        Args:
            domains: of the items.
            worth: (items,) 0..1.
        """
        self._writeframe_of("items.parquet", pd.DataFrame({"domain": domains, "worth": worth}))

    def measured(self, name: str, rows: pd.DataFrame) -> None:
        """Add what was measured in a round to a table of `MEASURED`; a round given twice is replaced.

        Args:
            name: of the table.
            rows: its columns.
        """
        before = self._measured[name]
        before = before[~before["round"].isin(rows["round"])]
        self._measured[name] = pd.concat([before, rows], ignore_index=True) if len(before) else rows
        self._writeframe_of(f"{name}.parquet", self._measured[name])

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
        self._writeframe_of("devices.parquet", ledger)

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
            self._writeframe_of("pictures.parquet", pd.DataFrame(self._pictures))

    def summaries(self, found: pd.DataFrame) -> None:
        """Write what a method knows of each device, where that is anything: the columns `SUMMARY_COLUMNS`."""
        if len(found):
            self._writeframe_of("summaries.parquet", found)

    def rotate(self, name: str) -> None:
        """Write the tables so far into a folder of their own and begin empty ones: a run without end.

        Args:
            name: of the folder, in `parts`.
        """
        place = self.path / PARTS / name
        with disk.writing(place):
            place.mkdir(parents=True, exist_ok=True)
        disk.replace(place / "rounds.parquet", _parquet(frame_of(self._rounds.values(), ROUND_COLUMNS)))
        disk.replace(place / "metrics.parquet", _parquet(frame_of(self._metrics.values(), METRIC_COLUMNS)))
        disk.replace(place / "devices.parquet", _parquet(self._devices))
        self._rounds, self._metrics, self._devices = {}, {}, self._devices.iloc[:0]

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
        rounds = frame_of(self._rounds.values(), ROUND_COLUMNS)
        metrics = frame_of(self._metrics.values(), METRIC_COLUMNS)
        write_json(
            self.path / "run.json",
            {
                "status": status,
                "rounds_done": max(rounds["round"].tolist(), default=0),
                "accuracy": final_accuracy(rounds),
                "forgetting": forgetting(rounds),
                "totals": {**totals(self._devices), CLOUD_FLOPS: cloud_flops(metrics)},
                "stream": dict(self.stream),
                "ledger_digest": self._ledger_digest,
                "adapter_digest": adapter_digest,
                "host_seconds": {k: round(v, 3) for k, v in self.stage_seconds.items()},
                "wall_seconds": round(self._wall(), 3),
            },
        )

    def _write_rounds(self) -> None:
        self._writeframe_of("rounds.parquet", frame_of(self._rounds.values(), ROUND_COLUMNS))
        self._writeframe_of("metrics.parquet", frame_of(self._metrics.values(), METRIC_COLUMNS))

    def _writeframe_of(self, name: str, frame: pd.DataFrame) -> None:
        disk.replace(self.path / name, _parquet(frame))
