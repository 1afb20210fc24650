"""The devices of a cloud: `devices.json`, one entry a number.

Written by `cdc-flower provision` and by `cdc-flower cloud up`, which registers keys with the SuperLink and
takes them away; each writes the whole file anew, under a lock, so that neither loses what the other wrote.
Others read it without one: a file is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cdc_flower.config import ConfigError
from cdc_flower.disk import replace
from cdc_flower.setting import STRICT

FILE, _LOCK = "devices.json", ".devices.lock"
WAIT = 600.0  # s, for whoever changes the file, at most: a bundle with large models takes minutes
MOST = 10**7
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"


@dataclass(frozen=True, config=STRICT)
class Key:
    """A device's key.

    Attributes:
        public_key: a line as OpenSSH writes it.
        fingerprint: its sha256, as `ssh-keygen -l` shows it.
        node_id: what the SuperLink calls the node with this key; None where it was not registered.
        when: of its last change, in ISO 8601.
    """

    public_key: str
    fingerprint: str
    node_id: int | None = None
    when: str = ""


@dataclass(frozen=True, config=STRICT)
class Device(Key):
    """A device of the cloud.

    Attributes:
        name: of its bundle.
        status: made = the SuperLink does not know its key; registered = it does; revoked = it must not.
        old: keys that it had before; the SuperLink must not know any of them.
    """

    name: str = Field(default="", pattern=NAME)
    status: Literal["made", "registered", "revoked"] = "made"
    old: tuple[Key, ...] = ()

    @property
    def revoked(self) -> tuple[Key, ...]:
        """Its keys that the SuperLink must not know."""
        own = (Key(self.public_key, self.fingerprint, self.node_id, self.when),)
        return self.old + (own if self.status == "revoked" else ())


def now() -> str:
    """As `when` says it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(cloud: Path) -> dict[int, Device]:
    """Number -> device; {} where none was provisioned.

    Raises:
        ConfigError: the file is none of that form.
    """
    try:
        found = json.loads((cloud / FILE).read_text(encoding="utf-8"))
        return {int(n): _SHAPE.validate_python(_renamed(one, "-", "_")) for n, one in found.items()}
    except FileNotFoundError:
        return {}
    except OSError as err:
        raise ConfigError(f"'{cloud / FILE}': {err.strerror}; allowed: a file that can be read") from None
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"'{cloud / FILE}': {where} = {first['input']!r}: {first['msg']}") from None
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(f"'{cloud / FILE}' is no list of devices; allowed: what provision wrote") from None


@contextmanager
def changing(cloud: Path, wait: float = WAIT) -> Iterator[dict[int, Device]]:
    """The devices, to be changed in the `with` block, which waits for whoever changes them now.

    They are written at its end, unless it raises.

    Args:
        cloud: its folder.
        wait: how long, at most [s].

    Raises:
        ConfigError: see `read`; or somebody else changes them for longer than that.
        DiskError: the file cannot be written; it is as it was.
    """
    try:
        lock = os.open(cloud / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise ConfigError(
            f"folder '{cloud}': {err.strerror}; allowed: a folder that can be written"
        ) from None
    try:
        _take(cloud, lock, wait)
        before = read(cloud)
        found = dict(before)
        yield found
        if found != before:
            data = {str(n): _renamed(asdict(found[n]), "_", "-") for n in sorted(found)}  # type: ignore[call-overload]
            replace(cloud / FILE, json.dumps(data, indent=1).encode() + b"\n", kept=True)
    finally:
        os.close(lock)


def _take(cloud: Path, lock: int, wait: float) -> None:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise ConfigError(
                    f"'{cloud / FILE}' is being changed by another process; allowed: when that has ended"
                ) from None
            time.sleep(0.05)


_SHAPE = TypeAdapter(Device)


def _renamed(value: Any, old: str, new: str) -> Any:
    """A JSON value whose keys have one character for another."""
    if isinstance(value, dict):
        return {key.replace(old, new): _renamed(one, old, new) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(one, old, new) for one in value]
    return value
