"""What the cloud's page shows, read from the cloud's folder: `status.json` and `devices.json`.

Both are written by other processes while they are read, and hold words and numbers that came from devices.
So every value is typed and bounded here, what does not fit is shown as unknown, and a text keeps neither
control characters nor marks that turn the direction of what stands beside it.

`status.json` (times are seconds since 1970; every field may be absent):

    {"written": time, "state": words, "run": words, "round": int, "version": int, "period": seconds,
     "devices": {"0": {"connected": bool, "version": int, "seen": time, "up": bytes, "down": bytes,
                       "samples": int, "refused": int, "reason": words, "agreement": 0..1}},
     "rounds": [{"round": int, "version": int, "at": time, "asked": int, "answered": int, "refused": int,
                 "samples": int, "up": bytes, "down": bytes, "agreement": 0..1, "guard": 0..1,
                 "accuracy": 0..1}]}

`agreement` is how often the teacher says what the device said, over the samples that came up; `guard` is how
far towards the version that the cloud had trained it was let go (1 = all the way); `accuracy` is measured on
held-out questions of the cloud's own data.

`devices.json`: {"0": {"name": words, "status": "made" | "registered" | "revoked"}}.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

STATUS, DEVICES = "status.json", "devices.json"
MOST_BYTES = 2**24  # of a file that is read
MOST_ROUNDS = 200  # that are drawn, the newest
LONGEST = 80  # characters of a text
LATE = 3.0  # periods without news, after which the cloud is called silent
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
    reason: str
    agreement: float | None


@dataclass(frozen=True)
class Round:
    """One round that is over; None = not known."""

    round: int
    version: int | None
    at: float | None
    asked: int | None
    answered: int | None
    refused: int | None
    samples: int | None
    up: int | None
    down: int | None
    agreement: float | None
    guard: float | None
    accuracy: float | None


@dataclass(frozen=True)
class View:
    """All of a page.

    Attributes:
        problem: why there is nothing to show, or that it is old; "" where all is well.
        connected: devices that are, of those that may be.
        allowed: devices that may connect.
        refused: replies of all devices that were refused.
    """

    problem: str
    state: str
    run: str
    round: int | None
    version: int | None
    written: float | None
    devices: Sequence[Device]
    rounds: Sequence[Round]
    connected: int
    allowed: int
    refused: int

    @property
    def last(self) -> Round | None:
        """The newest round."""
        return self.rounds[-1] if self.rounds else None

    @property
    def rollbacks(self) -> list[Round]:
        """Rounds that ended with an earlier version than the round before."""
        return [
            b
            for a, b in pairwise(self.rounds)
            if a.version is not None and b.version is not None and b.version < a.version
        ]


def read(folder: Path, now: float) -> View:
    """The state of the cloud in a folder.

    Args:
        folder: of the cloud.
        now: seconds since 1970.
    """
    status, problem = _object(folder / STATUS)
    registered, other = _object(folder / DEVICES)
    said = _mapping(status, "devices")
    numbers = sorted({n for n in map(_number, (*said, *registered)) if n is not None})
    devices = [_device(n, _mapping(said, str(n)), _mapping(registered, str(n))) for n in numbers]
    known = status.get("rounds")
    rows = [r for r in known[-MOST_ROUNDS:] if isinstance(r, Mapping)] if isinstance(known, list) else []
    rounds = [_round(row) for row in rows if _int(row, "round") is not None]
    written, period = _float(status, "written", _TIME), _float(status, "period", _TIME)
    if not problem and written is not None and now - written > LATE * max(period or 0.0, 20.0):
        problem = "The cloud has not written its state for a long time: it is not running, or it hangs."
    return View(
        problem or other,
        text(status.get("state")),
        text(status.get("run")),
        _int(status, "round"),
        _int(status, "version"),
        written,
        devices,
        rounds,
        sum(bool(d.connected) and d.status != "revoked" for d in devices),
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


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 8 else None


def _int(of: Mapping[str, Any], key: str) -> int | None:
    value = of.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _INT:
        return value
    return None


def _float(of: Mapping[str, Any], key: str, most: float) -> float | None:
    value = of.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
        return float(value)
    return None


def _device(number: int, said: Mapping[str, Any], own: Mapping[str, Any]) -> Device:
    connected = said.get("connected")
    return Device(
        number,
        text(own.get("name")) or f"device {number}",
        text(own.get("status")) or "unknown",
        connected if isinstance(connected, bool) else None,
        _int(said, "version"),
        _float(said, "seen", _TIME),
        _int(said, "up"),
        _int(said, "down"),
        _int(said, "samples"),
        _int(said, "refused"),
        text(said.get("reason")),
        _float(said, "agreement", 1),
    )


def _round(row: Mapping[str, Any]) -> Round:
    return Round(
        _int(row, "round") or 0,
        _int(row, "version"),
        _float(row, "at", _TIME),
        _int(row, "asked"),
        _int(row, "answered"),
        _int(row, "refused"),
        _int(row, "samples"),
        _int(row, "up"),
        _int(row, "down"),
        _float(row, "agreement", 1),
        _float(row, "guard", 1),
        _float(row, "accuracy", 1),
    )
