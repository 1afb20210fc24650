"""What the cloud's page shows, read from the cloud's folder: `status.json` and `devices.json`.

Both are written by other processes while they are read, and hold words and numbers that came from devices.
So every value is typed and bounded here, what does not fit is shown as unknown, and a text keeps neither
control characters nor marks that turn the direction of what stands beside it.

The fields of `status.json` are those of `strategies.served.status`; each may be absent. `devices.json` says
of each number its `name` and `status`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.deploy import keys

STATUS, DEVICES = "status.json", "devices.json"
MOST_BYTES = 2**24  # of a file that is read
MOST_VERSIONS = 200  # that are drawn, the newest
MOST_ROWS = 10_000
MOST_DOMAINS = 16
LONGEST = 80  # characters of a text
LATE = 3.0  # periods without news, after which the cloud is called silent
SOON = 60.0  # s, the shortest period for that: a round may take longer than its period
_INT = 2**63 - 1
_TIME = 2**36  # s since 1970
_FORBIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, direction, surrogates, line separators


@dataclass(frozen=True)
class Device:
    """One device; None = not known."""

    number: int
    name: str
    status: str
    connected: bool | None
    version: int | None
    seen: float | None
    up: int | None
    down: int | None
    samples: int | None
    refused: int | None
    failed: int | None
    missing: int | None

    @property
    def here(self) -> bool:
        """Whether it is connected and let in; who was revoked may still stand as connected."""
        return bool(self.connected) and self.status != "revoked"


@dataclass(frozen=True)
class Version:
    """A version that was made or gone back to; None = not known."""

    version: int
    round: int | None
    at: float | None
    agreement: float | None
    back: bool


@dataclass(frozen=True)
class Measured:
    """Held-out accuracy of a version, by kind of question."""

    version: int | None
    domains: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Rollback:
    """The last request to go back: to which version, and why it was refused ("" = it was done)."""

    version: int | None
    round: int | None
    refused: str


@dataclass(frozen=True)
class View:
    """All of a page.

    Attributes:
        problem: why there is nothing to show, or that it is old, and that the server's certificate ends soon;
            "" where all is well.
        agreement: share of what came last on which teacher and devices agree.
        guard: share of the last step that the guard let pass.
        connected: devices that are, of those that may be.
        allowed: devices that may connect.
        refused: replies of all devices that were refused.
        strangers: connected nodes that are no device: their number and why.
        kept: versions that can be gone back to.
    """

    problem: str
    state: str
    method: str
    round: int | None
    version: int | None
    written: float | None
    agreement: float | None
    guard: float | None
    accuracy: Measured | None
    devices: Sequence[Device]
    versions: Sequence[Version]
    strangers: Sequence[tuple[str, str]]
    kept: Sequence[int]
    rollback: Rollback | None
    connected: int
    allowed: int
    refused: int


def read(folder: Path, now: float) -> View:
    """The state of the cloud in a folder.

    Args:
        folder: of the cloud.
        now: seconds since 1970.
    """
    status, problem = _object(folder / STATUS)
    registered, other = _object(folder / DEVICES)
    said = {n: row for row in _rows(status, "devices") if (n := _int(row, "device")) is not None}
    listed = {n: _mapping(registered, key) for key in registered if (n := _number(key)) is not None}
    devices = [_device(n, said.get(n, {}), listed.get(n, {})) for n in sorted({*said, *listed})]
    versions = [v for row in _rows(status, "versions") if (v := _version(row)) is not None]
    written, period = _float(status, "time", _TIME), _float(status, "period", _TIME)
    if not problem and written is not None and now - written > LATE * max(period or 0.0, SOON):
        problem = "The cloud has not written its state for a long time: it is not running, or it hangs."
    kept = status.get("kept")
    ending = keys.ending(folder, datetime.fromtimestamp(now, UTC))
    warned = f"{ending[0].upper()}{ending[1:]}." if ending else ""
    return View(
        " ".join(filter(None, (problem or other, warned))),
        text(status.get("state")),
        text(status.get("method")),
        _int(status, "round"),
        _int(status, "version"),
        written,
        _float(status, "agreement", 1),
        _float(status, "guard", 1),
        _measured(_mapping(status, "accuracy")),
        devices,
        versions[-MOST_VERSIONS:],
        [(text(row.get("node")), text(row.get("reason"))) for row in _rows(status, "strangers")],
        [v for v in kept[-MOST_VERSIONS:] if _fits(v)] if isinstance(kept, list) else [],
        _rollback(_mapping(status, "rollback")),
        sum(d.here for d in devices),
        sum(d.status != "revoked" for d in devices),
        sum(d.refused or 0 for d in devices),
    )


def text(value: Any, longest: int = LONGEST) -> str:
    """A text as it may be shown: on one line, of visible characters, not too long; "" for what is none."""
    if not isinstance(value, str):
        return ""
    plain = "".join(
        c if unicodedata.category(c) not in _FORBIDDEN else "\ufffd" for c in value[: 2 * longest]
    )
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def _object(path: Path) -> tuple[Mapping[str, Any], str]:
    """A JSON object in a file, and what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        found = json.loads(data) if len(data) <= MOST_BYTES else None
    except FileNotFoundError:
        return {}, f"No {path.name} yet: the cloud has not finished its first step."
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, Mapping):
        return found, ""
    return {}, f"{path.name} cannot be read: it is damaged or too large."


def _mapping(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = of.get(key)
    return found if isinstance(found, Mapping) else {}


def _rows(of: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = of.get(key)
    return [row for row in found[:MOST_ROWS] if isinstance(row, Mapping)] if isinstance(found, list) else []


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 8 else None


def _fits(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _INT


def _int(of: Mapping[str, Any], key: str) -> int | None:
    value = of.get(key)
    return value if _fits(value) else None


def _float(of: Mapping[str, Any], key: str, most: float) -> float | None:
    value = of.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
        return float(value)
    return None


def _device(number: int, said: Mapping[str, Any], own: Mapping[str, Any]) -> Device:
    connected = said.get("connected")
    return Device(
        number,
        text(own.get("name")) or text(said.get("name")) or f"device {number}",
        text(own.get("status")) or "unknown",
        connected if isinstance(connected, bool) else None,
        _int(said, "version"),
        _float(said, "seen", _TIME),
        _int(said, "bytes_up"),
        _int(said, "bytes_down"),
        _int(said, "samples"),
        _int(said, "refused"),
        _int(said, "failed"),
        _int(said, "missing"),
    )


def _version(row: Mapping[str, Any]) -> Version | None:
    number = _int(row, "version")
    if number is None:
        return None
    at, agreement = _float(row, "time", _TIME), _float(row, "agreement", 1)
    return Version(number, _int(row, "round"), at, agreement, row.get("back") is True)


def _measured(of: Mapping[str, Any]) -> Measured | None:
    domains = _mapping(of, "domains")
    known = [(text(name), value) for name in domains if (value := _float(domains, name, 1)) is not None]
    return Measured(_int(of, "version"), known[:MOST_DOMAINS]) if known else None


def _rollback(of: Mapping[str, Any]) -> Rollback | None:
    return Rollback(_int(of, "version"), _int(of, "round"), text(of.get("refused"))) if of else None
