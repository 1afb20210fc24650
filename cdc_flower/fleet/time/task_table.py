"""The table of device-tasks: who was asked in which round, what became of it, and where its time went."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterable, Set
from typing import NamedTuple

import pandas as pd

from cdc_flower.fleet.cost.profiles import Devices
from cdc_flower.fleet.time.clock import STATUSES, Report
from cdc_flower.fleet.time.tasks import Plan


class TaskRow(NamedTuple):
    """What happened to a device-task; times in virtual seconds.

    Attributes:
        fate: a name of `clock.STATUSES`.
        finish: when its answer was complete; infinite where it never was.
    """

    round: int
    device: int
    profile: str
    device_class: str
    compression: str
    fate: str
    begin: float
    finish: float
    download_seconds: float
    work_seconds: float
    upload_seconds: float
    offline_seconds: float
    wait_seconds: float
    joules: float


class TaskTable:
    """Rows of all rounds so far.

    Args:
        devices: n devices.
        compression: n names, of what each runs.
    """

    def __init__(self, devices: Devices, compression: tuple[str, ...]) -> None:
        self.devices, self.compression = devices, compression
        self._rows: dict[tuple[int, int], TaskRow] = {}  # by round and device

    def enter(self, report: Report, waited_for: Set[int]) -> None:
        """Rows of a round's tasks, and the fate of earlier ones that will never come.

        Args:
            report: of the round.
            waited_for: devices whose answers are on their way and in time whenever they come.
        """
        spent = report.spent
        times = report.finish, spent.download, spent.work, spent.upload, spent.offline, spent.wait
        numbers = (column.tolist() for column in (*times, report.joules))
        for device, status, *of_task in zip(
            report.device.tolist(), report.status.tolist(), *numbers, strict=True
        ):
            self._rows[report.round, device] = TaskRow(
                report.round,
                device,
                self.devices.names[device],
                self.devices.classes[device],
                self.compression[device],
                "in" if device in waited_for else STATUSES[status],
                report.begin,
                *of_task,
            )
        lost = report.lost_round.tolist(), report.lost_device.tolist(), report.lost_status.tolist()
        for asked_in, device, status in zip(*lost, strict=True):
            row = self._rows[asked_in, device]
            self._rows[asked_in, device] = row._replace(fate=STATUSES[status], finish=math.inf)

    def frame(self, pending: Plan) -> pd.DataFrame:
        """One row for each task so far, by round and device; columns as `TaskRow`. A task that is pending
        counts as late.
        """
        going = set(zip(pending.round.tolist(), pending.device.tolist(), strict=True))
        return _frame(row._replace(fate="late") if row[:2] in going else row for row in self._sorted())

    def digest(self) -> str:
        """sha256 hex over all rows."""
        lines = [json.dumps(row._asdict(), separators=(",", ":")) for row in self._sorted()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def dumped(self) -> bytes:
        """The rows as parquet, for a checkpoint."""
        stream = io.BytesIO()
        _frame(self._sorted()).to_parquet(stream, index=False)
        return stream.getvalue()

    def load(self, data: bytes) -> None:
        """Go on from what `dumped()` said."""
        rows = pd.read_parquet(io.BytesIO(data)).itertuples(index=False, name=None)
        self._rows = {(row[0], row[1]): TaskRow(*row) for row in rows}

    def _sorted(self) -> list[TaskRow]:
        return [row for _, row in sorted(self._rows.items())]


def _frame(rows: Iterable[TaskRow]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(TaskRow._fields))
