"""What other packages, and this one, add by entry points: names are known before anything is imported.

A package that brings a method says so in its `pyproject.toml`:

    [project.entry-points."cdc_flower.methods"]
    my_method = "my_package.strategy:MyMethod"

and the method is then a choice of `run.method`, of `compare` and of every table like those that are here.
Nothing in this package imports `strategies`: it asks for what is registered. Smaller things (a score, a loss,
a codec, a task) are entries of a registry; a module that adds some is announced in `cdc_flower.extensions`.

What another package announces and nobody asked for may be broken, or on its way into or out of the
environment while a comparison goes on: it is left out with one warning (`found`), and refused where it is
asked for (`load`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cdc_flower.border import nearest
from cdc_flower.setting import ConfigError

METHODS = "cdc_flower.methods"
CALLBACKS = "cdc_flower.callbacks"
EXTENSIONS = "cdc_flower.extensions"
HERE = "cdc-flower"  # the distribution of this package
_log = logging.getLogger(__name__)
_left_out: dict[tuple[str, str], str] = {}
"""Group and name of what was left out in this process -> why."""


@lru_cache(maxsize=8)
def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def names(group: str) -> tuple[str, ...]:
    """Names that are registered in a group, sorted; nothing is imported."""
    return tuple(sorted(_entries(group)))


def refuse_unknown(group: str, what: str, name: str) -> None:
    """Refuse a name that nothing is registered under; nothing is imported.

    Args:
        group: of entry points.
        what: is registered there, for the message: "method".
        name: that somebody typed.

    Raises:
        ConfigError: names the nearest, and all.
    """
    known = names(group)
    if name not in known:
        raise ConfigError(f"unknown {what} '{name}'; {nearest(name, known)}allowed: {', '.join(known)}")


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


@lru_cache(maxsize=8)  # whose an entry is stands in a file that is parsed anew each time
def own(group: str) -> tuple[str, ...]:
    """Those of `names` that this package brings itself."""
    return tuple(n for n in names(group) if (dist := _entries(group)[n].dist) and dist.name == HERE)


def found(group: str, load: Callable[[str], Any]) -> dict[str, Any]:
    """All of a group that can be used; of other packages' what cannot is left out, with one warning.

    Args:
        group: of entry points.
        load: gives the object of a name, or raises `ConfigError`.

    Raises:
        ConfigError: what this package brings itself cannot be used.
    """
    usable, ours = dict[str, Any](), own(group)
    for name in names(group):
        try:
            usable[name] = load(name)
        except ConfigError as err:
            if name in ours:
                raise
            if (group, name) not in _left_out:
                _log.warning("left out: %s", err)
            _left_out[group, name] = str(err)
    return usable


def left_out() -> str:
    """What was left out, as the end of a refusal of a name that it may have been to bring; "" for nothing."""
    return "".join(f"; left out: {why.partition('; allowed')[0]}" for why in _left_out.values())


@lru_cache(maxsize=1)
def extend() -> None:
    """Import the modules that installed packages announce as extensions, once in a process."""
    found(EXTENSIONS, lambda name: load(EXTENSIONS, name))


def forget() -> None:
    """Look again at what is installed."""
    for cached in (_entries, own, load, extend):
        cached.cache_clear()
    _left_out.clear()
