"""What the cloud says of itself after each round: `status.json` in its folder, which the page and `cdc-flower
cloud status` show.

    time            seconds since 1970, of this writing
    state           asking | learning | waiting | no room (the disk does not take the last round) | ended
    method, mode    what is run, and sync | buffer
    round, version  of the last round, and of the newest adapter
    digest          of that adapter, as devices name it, in hex
    period          seconds from the begin of a round to the next, at least
    agreement       share of what came last on which teacher and devices agree; null = nothing came yet
    guard           share of the last step that the guard let pass; null = no guard
    accuracy        null, or of the newest version that was measured: version, round, domains (name -> 0..1)
    devices         by number: device, name, connected, seen (time), version, rounds (answered), samples,
                    bytes_up, bytes_down, refused, failed, missing
    strangers       connected nodes that are no device: node, reason
    versions        the newest `SHOWN`: version, round, time, digest, agreement, back (made by a rollback)
    kept            versions that can be gone back to
    rollback        null, or the last one: version, from, round, time, refused ("" = it was done)

The counts of devices and the list of versions are a part of each checkpoint, so they outlive the process.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cdc_flower.ledger import Row
from cdc_flower.results import write_json
from strategies.served.nodes import Nodes

FILE = "status.json"
SHOWN = 500  # versions


@dataclass
class Tally:
    """What came of one device so far."""

    rounds: int = 0
    samples: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    refused: int = 0
    failed: int = 0
    missing: int = 0
    seen: float | None = None

    def add(self, row: Row) -> None:
        """Count a row of the ledger."""
        name = "rounds" if row.status == "ok" else row.status
        setattr(self, name, getattr(self, name) + 1)
        self.samples += row.uploaded_samples
        self.bytes_up += row.uplink_bytes
        self.bytes_down += row.downlink_bytes


@dataclass
class Status:
    """The writer of `status.json`.

    Attributes:
        tallies: device -> its counts.
        versions: the newest ones, oldest first.
        now: whatever else stands in the file, under its names.
    """

    path: Path
    clock: Callable[[], float] = time.time
    tallies: dict[int, Tally] = field(default_factory=dict)
    versions: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=SHOWN))
    now: dict[str, Any] = field(
        default_factory=lambda: {"agreement": None, "guard": None, "accuracy": None, "rollback": None}
    )

    def count(self, rows: Iterable[Row], connected: Iterable[int]) -> None:
        """Take the rows of a round, and who was there."""
        for row in rows:
            self.tallies.setdefault(row.device, Tally()).add(row)
        for device in connected:
            self.tallies.setdefault(device, Tally()).seen = self.clock()

    def made(
        self, version: int, round: int, digest: str, agreement: float | None, back: bool = False
    ) -> None:
        """A version was made, or gone back to."""
        self.versions.append(
            {
                "version": version,
                "round": round,
                "time": self.clock(),
                "digest": digest,
                "agreement": agreement,
                "back": back,
            }
        )

    def write(self, nodes: Nodes, has: Mapping[int, int], kept: Iterable[int], **now: Any) -> None:
        """Write the file.

        Args:
            nodes: who is there.
            has: device -> version of the adapter that it said it has.
            kept: versions that can be gone back to.
            **now: what has changed of `now`.
        """
        self.now |= now
        numbers = sorted({*nodes.listed, *nodes.connected, *self.tallies})
        devices = [
            {
                "device": d,
                "name": nodes.listed[d].name if d in nodes.listed else "",
                "connected": d in nodes.connected,
                "version": has.get(d),
                **asdict(self.tallies.get(d, Tally())),
            }
            for d in numbers
        ]
        write_json(
            self.path,
            {
                "time": self.clock(),
                **self.now,
                "devices": devices,
                "strangers": [{"node": str(n), "reason": why} for n, why in sorted(nodes.refused.items())],
                "versions": list(self.versions),
                "kept": sorted(kept),
            },
        )

    def state(self) -> dict[str, Any]:
        """The counts and the versions."""
        tallies = {str(d): asdict(tally) for d, tally in self.tallies.items()}
        own = {"tallies": tallies, "versions": list(self.versions), "now": self.now}
        return {"json": json.dumps(own)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        own = json.loads(state["json"])
        self.tallies = {int(d): Tally(**tally) for d, tally in own["tallies"].items()}
        self.versions = deque(own["versions"], maxlen=SHOWN)
        self.now = own["now"]
