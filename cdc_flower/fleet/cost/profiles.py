"""Devices: what boards, phones and computers can do.

`profiles.json` beside this module holds one profile for each device, every figure as `[value, source]`: a
figure without a source cannot be written down. Figures are what is usable (a benchmark where there is one,
else a share of the peak, marked "estimated"), not what is printed on the box. JSON and not TOML, because
Python reads and writes it: whoever measures a machine writes the same file. Power is that of the whole device
in one of three states; a device is in exactly one at a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from cdc_flower.config import ConfigError

TABLE = Path(__file__).with_name("profiles.json")
CLASSES = ("board", "phone", "laptop", "pc")
UNITS = {
    "flops_fp32": "FLOP/s",
    "flops_fp16": "FLOP/s",
    "flops_int8": "op/s",
    "memory_bw": "B/s",
    "ram": "B",
    "up_bw": "bit/s",
    "down_bw": "bit/s",
    "rtt": "s",
    "loss": "share",
    "idle_power": "W",
    "compute_power": "W",
    "radio_power": "W",
    "battery": "J",
    "charge_power": "W",
}
"""Figure of a profile -> its unit."""
OF_BATTERY = ("battery", "charge_power")
MOST = 1e24  # of any figure: beyond it a slip of the pen, and sums of squares of it are still numbers


@dataclass(frozen=True)
class Profile:
    """One kind of device.

    Attributes:
        name: letters, digits and hyphens.
        device_class: one of `CLASSES`; decides when such devices are there (`availability.HABITS`).
        flops_fp32, flops_fp16, flops_int8: usable arithmetic, FLOP/s (multiply and add are 2).
        memory_bw: usable memory bandwidth, B/s.
        ram: bytes that a model and its work may take.
        up_bw, down_bw: of the network, bit/s.
        rtt: round trip to the cloud, s.
        loss: share of packets lost, as TCP sees it, 0 <= loss < 1.
        idle_power, compute_power, radio_power: of the whole device while it does nothing for us, computes, or
            transfers, W.
        battery: capacity in J, None on mains.
        charge_power: what goes into the battery while charging, W; None on mains.
        sources: figure -> where it comes from.

    Raises:
        ConfigError: a figure that is absent, no finite number, or out of its range.
    """

    name: str
    device_class: str
    flops_fp32: float
    flops_fp16: float
    flops_int8: float
    memory_bw: float
    ram: float
    up_bw: float
    down_bw: float
    rtt: float
    loss: float
    idle_power: float
    compute_power: float
    radio_power: float
    battery: float | None = None
    charge_power: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.name):
            raise ConfigError(f"profile {self.name!r}: field 'name'; allowed: letters, digits and hyphens")
        if self.device_class not in CLASSES:
            raise ConfigError(
                f"profile '{self.name}': field 'device_class' = {self.device_class!r}; "
                f"allowed: {', '.join(CLASSES)}"
            )
        for figure in UNITS:
            _check(self.name, figure, getattr(self, figure))
        if (self.battery is None) != (self.charge_power is None):
            absent = next(f for f in OF_BATTERY if getattr(self, f) is None)
            raise ConfigError(
                f"profile '{self.name}': field '{absent}' is null; allowed: null for battery "
                "and charge_power together (mains), or a number above 0 for both"
            )


def _check(name: str, figure: str, value: Any) -> None:
    """One figure is there, finite and in its range."""
    if value is None and figure in OF_BATTERY:
        return
    zero = figure == "loss"
    fine = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (0 <= value < 1 if zero else 0 < value <= MOST)
    )
    if not fine:
        allowed = (
            "a number from 0 to below 1"
            if zero
            else f"a finite number above 0 ({UNITS[figure]}) and up to {MOST:g}"
        )
        raise ConfigError(
            f"profile '{name}': field '{figure}' = {value!r}; allowed: {allowed}"
            + (", or null on mains" if figure in OF_BATTERY else "")
        )


# --- the table ----------------------------------------------------------------------------------------------


def read_profiles(path: Path | str = TABLE) -> dict[str, Profile]:
    """Profiles of a JSON file: {name: {"device_class": ..., figure: [value, source], ...}}.

    Raises:
        ConfigError: no such file, no JSON, or a profile that is not allowed; names profile and field.
    """
    path = Path(path)
    try:
        table = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as err:
        raise ConfigError(f"profiles '{path}' cannot be read: {err.strerror}; allowed: a JSON file") from None
    except (ValueError, RecursionError) as err:
        raise ConfigError(f"profiles '{path}': {err}; allowed: one JSON object of profiles") from None
    if not isinstance(table, dict) or not all(isinstance(record, dict) for record in table.values()):
        raise ConfigError(f"profiles '{path}': allowed: one JSON object of profiles")
    return {name: _profile(name, record) for name, record in table.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"'{name}' stands there twice")
    return dict(pairs)


def _profile(name: str, record: Mapping[str, Any]) -> Profile:
    for key in ("device_class", *UNITS):
        if key not in record:
            raise ConfigError(
                f"profile '{name}': field '{key}' is missing; allowed: "
                + (", ".join(CLASSES) if key == "device_class" else "[value, source]")
            )
    for key in record:
        if key not in ("device_class", *UNITS):
            near = get_close_matches(key, UNITS, n=1)
            raise ConfigError(
                f"profile '{name}': unknown field '{key}'; "
                + (f"did you mean {near[0]}?" if near else f"allowed: {', '.join(UNITS)}")
            )
    values, sources = {}, {}
    for figure in UNITS:
        pair = record[figure]
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str) and pair[1].strip()):
            raise ConfigError(
                f"profile '{name}': field '{figure}' = {pair!r}; allowed: [value, source], the "
                "source in words"
            )
        values[figure], sources[figure] = pair
    return Profile(name, record["device_class"], **values, sources=sources)


def write_profiles(path: Path | str, profiles: Sequence[Profile]) -> None:
    """Write a file that `read_profiles` reads; every figure needs a source.

    Raises:
        ConfigError: a figure has none.
    """
    table: dict[str, dict[str, Any]] = {}
    for p in profiles:
        for figure in UNITS:
            if figure not in p.sources:
                raise ConfigError(
                    f"profile '{p.name}': field '{figure}' has no source; allowed: every "
                    "figure with its source"
                )
        table[p.name] = {"device_class": p.device_class}
        table[p.name] |= {figure: [getattr(p, figure), p.sources[figure]] for figure in UNITS}
    Path(path).write_text(json.dumps(table, indent=2, allow_nan=False) + "\n", encoding="utf-8")


# --- the fleet ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Devices:
    """A fleet: the figures of `Profile` as arrays (n,) float64, one row for each device.

    On mains `battery` is infinite and `charge_power` 0.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    flops_fp32: np.ndarray
    flops_fp16: np.ndarray
    flops_int8: np.ndarray
    memory_bw: np.ndarray
    ram: np.ndarray
    up_bw: np.ndarray
    down_bw: np.ndarray
    rtt: np.ndarray
    loss: np.ndarray
    idle_power: np.ndarray
    compute_power: np.ndarray
    radio_power: np.ndarray
    battery: np.ndarray
    charge_power: np.ndarray

    @classmethod
    def of(cls, profiles: Sequence[Profile]) -> Devices:
        """Device i has `profiles[i]`."""
        mains = {"battery": math.inf, "charge_power": 0.0}
        columns = {
            figure: np.array(
                [mains[figure] if (v := getattr(p, figure)) is None else v for p in profiles],
                dtype=np.float64,
            )
            for figure in UNITS
        }
        return cls(tuple(p.name for p in profiles), tuple(p.device_class for p in profiles), **columns)

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, device: np.ndarray) -> Devices:
        """The devices (m,) int64, in that order."""
        columns = {figure: getattr(self, figure)[device] for figure in UNITS}
        places = np.asarray(device).tolist()
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in places),
            classes=tuple(self.classes[i] for i in places),
            **columns,
        )
