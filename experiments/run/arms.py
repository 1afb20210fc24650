"""Studies: what is varied, as arms for `compare`. The evidence behind the defaults, one file per question.

A study is `experiments/studies/<name>.toml`, or any file of that form:

    [settings]                  # shared by all arms
    data.items = "tuning"
    [grid]                      # every combination is an arm, named after what varies
    run.method = ["fedavg_lora"]
    fedavg.lr = [1e-3, 3e-3]
    [arms."no replay"]          # further arms by name
    cloud.replay-share = 0.0
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdc_flower.config import ConfigError, full_key
from experiments.run.settings import flattened
from strategies import method as registry

STUDIES = Path(__file__).parents[1] / "studies"
TABLES = ("settings", "grid", "arms")


def studies() -> tuple[str, ...]:
    """Names of the studies."""
    return tuple(sorted(path.stem for path in STUDIES.glob("*.toml")))


def read(name: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The shared settings and the arms (name -> settings) of a study.

    Args:
        name: of a study, or the path of a TOML file.

    Raises:
        ConfigError: no such study, or a file that is not of the form above.
    """
    path = STUDIES / f"{name}.toml" if name in studies() else Path(name)
    try:
        study = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(
            f"unknown study '{name}'; allowed: {', '.join(studies())}, or a TOML file"
        ) from None
    except ValueError as err:
        raise ConfigError(f"study '{name}': {err}") from None
    unknown = [key for key in study if key not in TABLES] or [
        k for k in study if not isinstance(study[k], dict)
    ]
    if unknown:
        raise ConfigError(f"study '{name}': '{unknown[0]}'; allowed: the tables {', '.join(TABLES)}")
    named = study.get("arms", {})
    if bad := [key for key, arm in named.items() if not isinstance(arm, dict)]:
        raise ConfigError(f"study '{name}': arm '{bad[0]}'; allowed: a table of settings")
    try:
        shared, lists = (flattened(study.get(table, {})) for table in ("settings", "grid"))
        named = {arm: flattened(table) for arm, table in named.items()}
    except ConfigError as err:
        raise ConfigError(f"study '{name}': {err}") from None
    if bad := [key for key, values in lists.items() if not _values(values)]:
        raise ConfigError(f"study '{name}': grid '{bad[0]}'; allowed: a list of words and numbers")
    for key, option in (("data.pack", "--data"), ("run.out-dir", "--out")):
        if key in {*shared, *lists, *(key for arm in named.values() for key in arm)}:
            raise ConfigError(f"study '{name}': sets '{key}'; allowed: the option {option}")
    if both := sorted({*shared} & {*lists}):
        raise ConfigError(f"study '{name}': '{both[0]}' is in settings and in grid; allowed: one of them")
    grid = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values()) if lists]
    varied = [key for key, values in lists.items() if len(values) > 1] or list(lists)
    names = [" ".join(_named(key, arm[key]) for key in varied) for arm in grid] + list(named)
    if twice := [n for n in names if names.count(n) > 1]:
        raise ConfigError(f"study '{name}': two arms are named '{twice[0]}'; allowed: one of each name")
    return shared, dict(zip(names, [*grid, *named.values()], strict=True))


def with_needs(arms: Mapping[str, Mapping[str, Any]], shared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arms with their methods, and the settings that these need where the arm says nothing else.

    Args:
        arms: name -> the settings by which it differs from the others.
        shared: of all arms; its `run.method` is that of an arm that names none, else it is `cdc`.
    """
    installed, found = registry.methods(), {}
    for name, arm in arms.items():
        own = {"run.method": shared.get("run.method", "cdc")}
        own |= {full_key(key): value for key, value in arm.items()}
        method = installed.get(own["run.method"])  # one that is not installed is refused with its arm
        found[name] = {**(method.needs if method else {}), **own}
    return found


def _values(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, str | int | float) for v in values)


def _named(key: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{key.rpartition('.')[2]}={value}"
