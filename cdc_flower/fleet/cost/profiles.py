"""Devices: what boards, phones and computers can do, and which of them make up a fleet.

`profiles.json` beside this module holds one profile for each device, every figure as `[value, source]`: a
figure without a source cannot be written down. Figures are what is usable (a benchmark where there is one,
else a share of the peak, marked "estimated"), not what is printed on the box. A mix says how many devices
are of which profile. JSON and not TOML, because Python reads and writes it: whoever measures a machine
writes the same file. Power is that of the whole device in one of three states; a device is in exactly one
at a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from cdc_flower.config import ConfigError
from cdc_flower.draws import generator

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
        device_class: one of `CLASSES`; decides when such devices are there (`traces.HABITS`).
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


# --- the mix ------------------------------------------------------------------------------------------------


def parse_mix(spec: str, profiles: Mapping[str, Profile]) -> tuple[dict[str, float], dict[str, Profile]]:
    """Shares of a fleet, from text or from a TOML file.

    Args:
        spec: "pi4=40%,pi5=60%", or the path of a file ending in ".toml" with a table `[mix]` of percentages
            (`pi4 = 40`) and, optionally, `profiles = ["mine.json"]`: further profiles, beside the file.
        profiles: those known so far.

    Returns:
        Profile name -> share (the shares sum to 1), and all profiles known now.

    Raises:
        ConfigError: unreadable, an unknown profile, a share that is none, or shares that do not sum to 100 %.
    """
    known = dict(profiles)
    if spec.strip().endswith(".toml"):
        path = Path(spec.strip())
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as err:
            raise ConfigError(f"mix '{path}' cannot be read: {err.strerror}; allowed: a TOML file") from None
        except ValueError as err:
            raise ConfigError(f"mix '{path}': {err}; allowed: TOML with a table [mix]") from None
        listed, files = content.get("mix"), content.get("profiles", [])
        if not isinstance(listed, dict) or not isinstance(files, list):
            raise ConfigError(f"mix '{path}'; allowed: a table [mix] of percentages, and profiles = [files]")
        for file in files:
            known |= read_profiles(path.parent / str(file))
        pairs = [(str(name), share) for name, share in listed.items()]
    else:
        parts = [part.strip() for part in spec.split(",") if part.strip()]
        pairs = [(name.strip(), share.strip()) for name, _, share in (part.partition("=") for part in parts)]
    shares: dict[str, float] = {}
    for name, share in pairs:
        if name not in known:
            raise ConfigError(f"mix {spec!r}: unknown profile '{name}'; allowed: {', '.join(sorted(known))}")
        if name in shares:
            raise ConfigError(f"mix {spec!r}: profile '{name}' stands there twice; allowed: once each")
        shares[name] = _percent(spec, name, share)
    if not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-9):
        raise ConfigError(
            f"mix {spec!r}: the shares sum to {100 * sum(shares.values()):g} %; allowed: 100 "
            "%, such as 'pi4=40%,pi5=60%'"
        )
    return shares, known


def _percent(spec: str, name: str, share: Any) -> float:
    try:
        if isinstance(share, bool):
            raise ValueError
        number = float(share.removesuffix("%")) if isinstance(share, str) else float(share)
        if isinstance(share, str) and not share.endswith("%"):
            raise ValueError
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number <= 100:
        raise ConfigError(
            f"mix {spec!r}: profile '{name}' = {share!r}; allowed: a percentage above 0 and up "
            "to 100, such as '40%'"
        )
    return number / 100


def deal(shares: Mapping[str, float], devices: int, seed: int) -> tuple[str, ...]:
    """The profile of every device: counts by largest remainder (each within 1 of its share), places by seed.

    Args:
        shares: profile name -> share, summing to 1.
        devices: how many.
        seed: of the shuffle, so that a device's number says nothing about its profile.
    """
    names = list(shares)
    exact = np.array([shares[name] for name in names]) * devices
    counts = np.floor(exact + 1e-9).astype(np.int64)
    rest = np.argsort(-(exact - counts), kind="stable")[: devices - counts.sum()]
    counts[rest] += 1
    placed = generator(seed, "fleet/mix").permutation(np.repeat(np.arange(len(names)), counts))
    return tuple(names[i] for i in placed)


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


def fleet(mix: str, devices: int, seed: int) -> Devices:
    """A fleet of the packaged profiles (and those a mix file adds), exact in proportion.

    Raises:
        ConfigError: see `parse_mix`; or a fleet without devices.
    """
    if devices < 1:
        raise ConfigError(f"a fleet of {devices} devices; allowed: at least 1")
    shares, profiles = parse_mix(mix, read_profiles())
    return Devices.of([profiles[name] for name in deal(shares, devices, seed)])
