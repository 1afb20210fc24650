"""Whether a device should send now: its battery, its temperature, and what its link costs.

Each is read from the system where the system knows it (psutil, which reads /sys; NetworkManager over D-Bus),
and a file `conditions.json` in the bundle's state folder says it instead, for machines whose battery or modem
Linux does not see. What nobody knows holds nothing back. A device that holds back answers a round without
samples, and applies updates all the same: it stays right and gives nothing.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic.dataclasses import dataclass as checked

from cdc_flower.setting import STRICT, setting

FILE = "conditions.json"
COLDEST, HOTTEST = -60.0, 150.0  # degrees Celsius; what a sensor says beyond is no temperature
_METERED = {"1": True, "2": False, "3": True, "4": False}  # NetworkManager's yes, no, and its two guesses
_WAIT = 2.0  # s, for an answer over D-Bus
_ASK = (
    *("get-property", "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"),
    *("org.freedesktop.NetworkManager", "Metered"),
)
_log = logging.getLogger(__name__)


@checked(frozen=True, config=STRICT)
class BackpressureConfig:
    """When a device answers a round without samples."""

    min_battery: float = setting(
        0.2,
        "share of a full battery below which nothing is sent, unless it is charging",
        "device",
        ge=0,
        le=1,
    )
    max_temperature: float = setting(
        85.0, "of the hottest sensor, above which nothing is sent [degrees C]", "device", ge=0, le=150
    )
    metered: bool = setting(False, "send over a link that costs money", "device")


@dataclass(frozen=True)
class Conditions:
    """A device's, now; None = nobody knows.

    Attributes:
        battery: share of a full one, 0 to 1.
        charging: mains are connected.
        temperature: of the hottest sensor [degrees Celsius].
        metered: the link costs money.
    """

    battery: float | None = None
    charging: bool | None = None
    temperature: float | None = None
    metered: bool | None = None


def read(state: Path) -> Conditions:
    """The conditions now.

    Args:
        state: the bundle's state folder, where `conditions.json` may say any of them instead of the system.
    """
    said = _said(state / FILE)
    system: dict[str, Any] = {}
    if not {"battery", "charging"} <= said.keys():
        system |= _battery()
    if "temperature" not in said:
        system["temperature"] = _temperature()
    if "metered" not in said:
        system["metered"] = _metered()
    return Conditions(**{**system, **said})


def may_send(config: BackpressureConfig, now: Conditions) -> str:
    """Why a device should send no samples now, in words; "" where it may."""
    if now.battery is not None and now.battery < config.min_battery and not now.charging:
        return f"battery at {now.battery:.0%}, below {config.min_battery:.0%} and not charging"
    if now.temperature is not None and now.temperature > config.max_temperature:
        return f"{now.temperature:.0f} degrees C, above {config.max_temperature:.0f}"
    if now.metered and not config.metered:
        return "the link is metered"
    return ""


# --- what a file says ---------------------------------------------------------------------------------------


def _said(path: Path) -> dict[str, Any]:
    """The fields of a file that can be used; what cannot is said once a reading and left to the system."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as err:
        _log.warning("'%s' cannot be read (%s): the system is asked instead", path, err)
        return {}
    fields = found if isinstance(found, Mapping) else {"": found}
    wrong = [name for name, value in fields.items() if name not in _FORMS or not _FORMS[name](value)]
    if wrong:
        _log.warning(
            "'%s': %s cannot be used; allowed: battery (0 to 1), charging, metered (true, false), temperature"
            " (degrees Celsius), null = unknown",
            path,
            ", ".join(f"{name!a} = {str(fields[name])[:24]!a}" for name in wrong[:4]),
        )
    return {name: value for name, value in fields.items() if name not in wrong}


def _number(least: float, most: float) -> Any:
    def fits(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value is None or (number and least <= value <= most)

    return fits


def _truth(value: Any) -> bool:
    return value is None or isinstance(value, bool)


_FORMS = {
    "battery": _number(0, 1),
    "charging": _truth,
    "temperature": _number(COLDEST, HOTTEST),
    "metered": _truth,
}


# --- what the system says -----------------------------------------------------------------------------------


def _battery() -> dict[str, Any]:
    try:
        found = psutil.sensors_battery()
    except (AttributeError, OSError, ValueError):  # a system without sensors; a driver that writes no number
        found = None
    if found is None or not math.isfinite(found.percent):
        return {}
    return {"battery": min(1.0, max(0.0, found.percent / 100)), "charging": found.power_plugged}


def _temperature() -> float | None:
    try:
        found = psutil.sensors_temperatures()
    except (AttributeError, OSError, ValueError):
        return None
    known = [one.current for sensors in found.values() for one in sensors if one.current is not None]
    return max((t for t in known if COLDEST <= t <= HOTTEST), default=None)


def _metered() -> bool | None:
    """What NetworkManager says of the link in use, or guesses."""
    bus = shutil.which("busctl")
    if bus is None:
        return None
    try:
        found = subprocess.run(  # noqa: S603 the system's own program, fixed arguments
            [bus, *_ASK], capture_output=True, text=True, timeout=_WAIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _METERED.get(found.stdout.removeprefix("u ").strip())
