"""What other packages, and this one, add by entry points: names are known before anything is imported.

A package that brings a method says so in its `pyproject.toml`:

    [project.entry-points."cdc_flower.methods"]
    my_method = "my_package.strategy:MyMethod"

and the method is then a choice of `run.method`, of `compare` and of every table like those that are here.
Nothing in this package imports `strategies`: it asks for what is registered. Smaller things (a score, a loss,
a codec, a task) are entries of a registry; a module that adds some is announced in `cdc_flower.extensions`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cdc_flower.setting import ConfigError

METHODS = "cdc_flower.methods"
CALLBACKS = "cdc_flower.callbacks"
EXTENSIONS = "cdc_flower.extensions"


@lru_cache(maxsize=8)
def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def names(group: str) -> tuple[str, ...]:
    """Names that are registered in a group, sorted; nothing is imported."""
    return tuple(sorted(_entries(group)))


@lru_cache(maxsize=64)
def load(group: str, name: str) -> Any:
    """The object that is registered under a name.

    Raises:
        KeyError: no such name.
        ConfigError: its module cannot be imported.
    """
    entry = _entries(group)[name]
    try:
        return entry.load()
    except Exception as err:
        said = str(err).splitlines()[0] if str(err) else "no message"
        raise ConfigError(
            f"'{name}' of {group} ({entry.value}) cannot be imported: {type(err).__name__}: {said}; allowed: "
            "a package that imports, or none of that name"
        ) from err


@lru_cache(maxsize=1)
def extend() -> None:
    """Import the modules that installed packages announce as extensions, once in a process."""
    for name in names(EXTENSIONS):
        load(EXTENSIONS, name)


def forget() -> None:
    """Look again at what is installed."""
    for found in (_entries, load, extend):
        found.cache_clear()
