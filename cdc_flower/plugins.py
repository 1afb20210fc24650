"""What other packages, and this one, add by entry points: names are known before anything is imported.

A package that brings a method says so in its `pyproject.toml`:

    [project.entry-points."cdc_flower.methods"]
    my_method = "my_package.strategy:MyMethod"

and the method is then a choice of `run.method`, of `compare` and of every table like those that are here.
Nothing in this package imports `strategies`: it asks for what is registered.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

METHODS = "cdc_flower.methods"
CALLBACKS = "cdc_flower.callbacks"


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
    """
    return _entries(group)[name].load()


def forget() -> None:
    """Look again at what is installed."""
    _entries.cache_clear()
    load.cache_clear()
