"""The ledger: one row for every device and round, in exact serialised bytes, FLOPs and seconds.

Rows are keyed by partition, not by Flower's node ids, and read back sorted: the same seed gives the same
ledger on any engine. `digest` leaves out the host's seconds, which may differ between two equal runs, and
the reasons, in whose words engines may differ.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import operator
from collections.abc import Iterable
from typing import Any

import pandas as pd

STATUSES = ("ok", "refused", "failed", "missing")
MOST = 2**63 - 1  # of a count: what a column holds


@dataclasses.dataclass(frozen=True)
class Row:
    """One device in one round. Counts are non-negative.

    What a device alone can know is *claimed*: bounded, but taken on its word.

    Attributes:
        round: from 1.
        device: partition id.
        status: "ok", "refused" (its answer broke its form, or the method refused it), "failed" (it raised),
            "missing" (asked, no answer).
        uplink_bytes, downlink_bytes: exact bytes of the messages' contents; nothing for an answer whose form
            is wrong, which is not weighed.
        uploaded_samples: samples that the cloud read from the frame.
        tokens_sent: vision tokens that it read there.
        flops_forward, flops_backward: on the device, made of the counts in its answer: claimed.
        host_seconds: of this machine, for whoever tunes it; claimed, and no result depends on it.
        reason: why an answer was not used, one printable line; "" where it was, or never came.
    """

    round: int
    device: int
    status: str = "ok"
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    uploaded_samples: int = 0
    tokens_sent: int = 0
    flops_forward: int = 0
    flops_backward: int = 0
    host_seconds: float = 0.0
    reason: str = ""

    def __post_init__(self):
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} in the ledger; allowed: {', '.join(STATUSES)}")
        for name in INTEGERS:
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or not 0 <= value <= MOST:
                raise ValueError(f"{name} = {value!r} in the ledger; allowed: integers from 0, of 63 bits")
            object.__setattr__(self, name, int(value))
        object.__setattr__(self, "host_seconds", float(self.host_seconds))


COLUMNS = tuple(f.name for f in dataclasses.fields(Row))
_VALUES = operator.attrgetter(*COLUMNS)  # as `dataclasses.astuple`, an eighth of the time
_DIGESTED = operator.attrgetter(*(name for name in COLUMNS if name not in ("host_seconds", "reason")))
INTEGERS = tuple(name for name in COLUMNS if name not in ("status", "host_seconds", "reason"))
SUMMED = INTEGERS[2:]


class Ledger:
    """Rows, at most one for each round and device."""

    def __init__(self, rows: Iterable[Row] = ()):
        self._rows: dict[tuple[int, int], Row] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Enter a row.

        Raises:
            ValueError: this device already has a row in this round.
        """
        key = (row.round, row.device)
        if key in self._rows:
            raise ValueError(f"device {row.device} already has a row in round {row.round}")
        self._rows[key] = row

    def rows(self) -> list[Row]:
        """All rows by round, then device."""
        return [self._rows[key] for key in sorted(self._rows)]

    def entered(self, after: int = 0) -> list[Row]:
        """The rows in the order in which they were entered, without the first `after`."""
        return list(itertools.islice(self._rows.values(), after, None))

    def __len__(self) -> int:
        return len(self._rows)

    def frame(self) -> pd.DataFrame:
        """All rows by round, then device; columns as `Row`."""
        table = pd.DataFrame(list(map(_VALUES, self.rows())), columns=list(COLUMNS))
        kinds = {**dict.fromkeys(INTEGERS, "int64"), "host_seconds": "float64"}
        return table.astype({**kinds, "status": "str", "reason": "str"})

    @classmethod
    def from_frame(cls, table: pd.DataFrame) -> Ledger:
        """The ledger `frame()` came from; that of an older version has no reasons."""
        table = table if "reason" in table else table.assign(reason="")
        return cls(Row(**{name: record[name] for name in COLUMNS}) for record in table.to_dict("records"))

    def totals(self) -> dict[str, Any]:
        """Sums of every count and of the host seconds, and the number of rows of each status."""
        rows = self.rows()
        sums: dict[str, Any] = {name: sum(getattr(r, name) for r in rows) for name in SUMMED}
        sums["host_seconds"] = sum(r.host_seconds for r in rows)
        return sums | {status: sum(r.status == status for r in rows) for status in STATUSES}

    def digest(self) -> str:
        """sha256 hex over all but the host's seconds and the reasons; independent of the order of entry."""
        lines = [json.dumps(_DIGESTED(r), separators=(",", ":")) for r in self.rows()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
