"""Whether a device can run, one thing after another: what an agent needs is looked at before it is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cdc_flower.config import ConfigError, RunError, parse_stages
from clients.device import models, preflight
from clients.device.conditions import may_send
from clients.device.conditions import read as conditions
from clients.device.database import FILE, Database
from clients.device.feeds import FEEDS, first_rows
from clients.device.settings import Bundle

KEY, PUBLIC, CA = "device.key", "device.key.pub", "ca.crt"
SPARE = 2**27  # bytes on the disk beside the spool: adapters, the log of the database


def _settings(bundle: Bundle) -> str:
    config = parse_stages(bundle.run_config())
    if (bundle.device.compression or config.pair.compression) == "auto":
        return "pair.compression = auto; allowed: 'compression' in device.toml"
    host, _, port = bundle.device.superlink.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        return f"superlink = '{bundle.device.superlink}'; allowed: host:port"
    if bundle.device.feed != "stream" and not bundle.device.longest_question:
        return "longest-question = 0; allowed: the ids of the longest question that the cloud takes"
    return ""


def _keys(bundle: Bundle) -> str:
    for name in (KEY, PUBLIC, CA):
        if not (bundle.folder / name).is_file():
            return f"no '{bundle.folder / name}'; allowed: a bundle as it was provisioned"
    mode = (bundle.folder / KEY).stat().st_mode & 0o777
    return f"'{bundle.folder / KEY}' has mode {mode:o}; allowed: 600 (chmod 600)" if mode & 0o77 else ""


def _models(bundle: Bundle) -> str:
    models.verify(bundle.folder)
    return ""


def _arithmetic(bundle: Bundle) -> str:
    preflight.arithmetic(bundle)
    return ""


def _feed(bundle: Bundle) -> str:
    if bundle.device.feed == "stream":
        return "" if bundle.feed.is_dir() else f"no folder '{bundle.feed}'"
    frames = preflight.frames(bundle)
    FEEDS[bundle.device.feed](bundle.feed, "", frames)
    return first_rows(bundle.device.feed, bundle.feed, frames)


def _database(bundle: Bundle) -> str:
    path = bundle.state / FILE
    if path.exists():
        database = Database(path)
        try:
            database.whole()
        finally:
            database.close()
    return ""


def _disk(bundle: Bundle) -> str:
    there = bundle.state if bundle.state.exists() else bundle.folder
    path = bundle.state / FILE
    used = path.stat().st_size if path.exists() else 0
    needed, free = max(0, bundle.device.spool_bytes - used) + SPARE, shutil.disk_usage(there).free
    if free >= needed:
        return ""
    return f"{free} bytes are free in '{there}'; allowed: {needed}, or a smaller 'spool-bytes' in device.toml"


def _conditions(bundle: Bundle) -> str:
    why = may_send(bundle.device, conditions(bundle.state))
    return f"nothing would be sent now: {why}" if why else ""


CHECKS: dict[str, Callable[[Bundle], str]] = {
    "settings": _settings,
    "keys": _keys,
    "models, against the cloud's signature": _models,
    "compressed products, by this processor": _arithmetic,
    "memory": preflight.memory,
    "clock": preflight.clock,
    "feed": _feed,
    "database": _database,
    "disk": _disk,
    "battery, temperature, link": _conditions,
}
"""What is looked at -> from a bundle to what is wrong; "" = nothing."""


def every(folder: Path) -> Iterator[tuple[str, str]]:
    """Each thing that is looked at, and what is wrong with it; "" = nothing.

    Raises:
        ConfigError: no bundle, or a `device.toml` that cannot be used.
    """
    bundle = Bundle.of(folder)
    for about, look in CHECKS.items():
        try:
            wrong = look(bundle)
        except (ConfigError, RunError, OSError) as err:
            wrong = str(err)
        yield about, wrong
