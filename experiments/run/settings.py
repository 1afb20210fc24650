"""Settings as people give them: a preset, then `--data`, then `--set key=value`; later ones win.

A preset is `experiments/presets/<name>.toml`, a run config; `"run.rounds" = 3`, `run.rounds = 3` and a table
`[run]` with `rounds = 3` say the same. Its `compare`, a list of methods, is what `compare` compares
where nothing else is asked for. Without `--preset` the one with the name of the data is taken, where there is
one: it says what the student of that data knows, and so what is drift.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cdc_flower.config import ConfigError, default, full_key, parse

PRESETS = Path(__file__).parents[1] / "presets"
COMPARE = "compare"  # the key of a preset that is no setting


def presets() -> tuple[str, ...]:
    """Names of the presets."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        ConfigError: no such preset, or it is not a table of settings.
    """
    said = {key: value for key, value in _read(name).items() if key != COMPARE}
    try:
        table = flattened(said)
        parse(table)
    except ConfigError as err:
        raise ConfigError(f"preset '{name}': {err}") from None
    return table


def compared(name: str | None) -> tuple[str, ...] | None:
    """The methods that are compared with a preset where nothing else is asked for; None where it names none.

    Raises:
        ConfigError: no such preset, or something else than names.
    """
    found = _read(name).get(COMPARE) if name not in (None, "none") else None
    if found is None:
        return None
    if not (isinstance(found, list) and found and all(isinstance(one, str) for one in found)):
        raise ConfigError(f"preset '{name}': {COMPARE} = {found!r}; allowed: a list of methods")
    return tuple(found)


def _read(name: str | None) -> dict[str, Any]:
    if name not in presets():
        raise ConfigError(f"unknown preset '{name}'; allowed: {', '.join(presets())}")
    try:
        return tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"preset '{name}': {err}") from None


def flattened(table: Mapping[str, Any]) -> dict[str, Any]:
    """A TOML table as `stage.key` -> value, however it was nested.

    Raises:
        ConfigError: an unknown key, or one that stands there twice.
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        nested = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        for name, one in nested.items():
            if full_key(name) in found:
                raise ConfigError(f"setting '{full_key(name)}' stands there twice; allowed: once")
            found[full_key(name)] = one
    return found


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """["run.rounds=3", "run.cohort=0.5"] -> {"run.rounds": 3, "run.cohort": 0.5}; values take the type of
    the setting.

    Raises:
        ConfigError: no "=", an unknown key, or one that is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}; allowed: key=value")
        key = full_key(key.strip())
        if key in found:
            raise ConfigError(f"--set {key} is given twice; allowed: once")
        found[key] = _typed(value.strip(), type(default(key)))
    return found


def _typed(value: str, kind: type) -> Any:
    """`value` as an int or float where the setting is one; else as it is, for `parse` to judge."""
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            return value
    return value


def resolve(
    data: str | None, preset_name: str | None, sets: Iterable[str]
) -> tuple[dict[str, Any], str | None]:
    """All settings of a command, and the preset that was used.

    Args:
        data: "scenes", "clips" or a pack folder; None = what the preset or the default says.
        preset_name: None = the one of the data's name, "none" = no preset.
        sets: key=value texts.

    Raises:
        ConfigError: see `preset` and `assignments`.
    """
    from cdc_flower.data.packs import GENERATED  # pandas, which a command's --help need not wait for

    asked = assignments(sets)
    if data is not None and "data.pack" in asked:
        raise ConfigError("--data and --set data.pack; allowed: one of them")
    data = str(asked.pop("data.pack", data or "")) or None
    if data is not None and data not in GENERATED:
        data = str(Path(data).expanduser().resolve())
    name = preset_name
    if name is None:
        own = parse({"data.pack": data} if data else {}).data.name
        name = own if own in presets() else None
    base = preset(name) if name not in (None, "none") else {}
    settings = dict(base)
    if data is not None:
        settings["data.pack"] = data
    return {**settings, **asked}, name
