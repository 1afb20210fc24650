"""Mixes: how many devices of a fleet are of which profile, and which device is which."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cdc_flower.config import ConfigError
from cdc_flower.draws import generator
from cdc_flower.fleet.cost.profiles import Devices, Profile, read_profiles


def parse_mix(spec: str) -> tuple[dict[str, float], dict[str, Profile]]:
    """Shares of a fleet, from text or from a TOML file, and the profiles to take them from.

    Args:
        spec: "pi4=40%,pi5=60%", or the path of a file ending in ".toml" with a table `[mix]` of percentages
            (`pi4 = 40`) and, optionally, `profiles = ["mine.json"]`: further profiles, beside the file.

    Returns:
        Profile name -> share (the shares sum to 1), and all profiles known now.

    Raises:
        ConfigError: unreadable, an unknown profile, a share that is none, or shares that do not sum to 100 %.
    """
    known = read_profiles()
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


def files_of(spec: str) -> list[Path]:
    """The file of a checked mix, and those of its profiles beside it; none where it is no file."""
    path = Path(spec.strip())
    if not spec.strip().endswith(".toml") or not path.is_file():
        return []
    profiles = tomllib.loads(path.read_text(encoding="utf-8")).get("profiles", [])
    return [path, *(path.parent / str(file) for file in profiles)]


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


def fleet(mix: str, devices: int, seed: int) -> Devices:
    """A fleet of the packaged profiles (and those a mix file adds), exact in proportion.

    Raises:
        ConfigError: see `parse_mix`; or a fleet without devices.
    """
    if devices < 1:
        raise ConfigError(f"a fleet of {devices} devices; allowed: at least 1")
    shares, profiles = parse_mix(mix)
    return Devices.of([profiles[name] for name in deal(shares, devices, seed)])
