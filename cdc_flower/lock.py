"""One run, one folder: whoever works in a folder holds its lock, and a second is refused before it works.

The lock is the kernel's (`flock` on the file `.lock` in the folder). It ends with the process that holds it,
however that ends, so nothing stale is left to clear away. What is written in the file only says who holds it.
A call chain may ask again for a lock that it holds; another thread or another process may not.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path

from cdc_flower.config import ConfigError

FILE = ".lock"
SHOWN = 200  # characters of the holder's command
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_held: ContextVar[frozenset[Path]] = ContextVar("_held", default=frozenset())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made where there is none, for a `with` block.

    Raises:
        ConfigError: somebody else holds it, the folder cannot be written, or its file system has no locks.
    """
    folder = folder.expanduser().resolve()
    if folder in _held.get():
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    file = _take(folder)
    token = _held.set(_held.get() | {folder})
    try:
        with suppress(OSError):  # a full disk: the lock holds, and its file does not say whose it is
            os.truncate(file, 0)
            os.write(file, _self().encode())
        yield
    finally:
        _held.reset(token)
        (folder / FILE).unlink(missing_ok=True)  # while it is held: see `_take`
        os.close(file)
        with suppress(OSError):  # nothing was written: a refusal leaves no folder behind
            for path in made:
                path.rmdir()


def refuse_if_taken(folder: Path) -> None:
    """Refuse a folder whose lock somebody else holds; nothing is held afterwards.

    Raises:
        ConfigError: see `locked`.
    """
    if (folder / FILE).exists():
        with locked(folder):
            pass


def taken(folder: Path) -> bool:
    """Whether somebody holds the lock of a folder now; nothing is written, and nothing is held afterwards.
    For the moment of looking nobody else can take the lock.

    Raises:
        OSError: it cannot be looked at, as where this process may have no more open files.
    """
    try:
        file = os.open(folder.expanduser() / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as err:
        return err.errno in _TAKEN
    finally:
        os.close(file)
    return False


def _take(folder: Path) -> int:
    """The lock file of a folder, open and locked. A holder removes the file when it lets go, so a lock counts
    only if the file is still the one of that name.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
                os.close(file)
            except FileNotFoundError:
                os.close(file)
            except BaseException:
                os.close(file)
                raise
    except OSError as err:
        raise ConfigError(_refusal(folder, err)) from None


def _refusal(folder: Path, err: OSError) -> str:
    if err.filename is not None:  # of mkdir or open
        return f"folder '{folder}': {err.strerror}; allowed: a folder that can be written"
    if err.errno in _TAKEN:
        return (
            f"folder '{folder}' is in use by {_holder(folder)}; allowed: another folder, or when it has ended"
        )
    return (
        f"folder '{folder}': its file system has no locks ({err.strerror}), and without one two runs could "
        "write into one folder; allowed: a folder on one that has flock"
    )


def _self() -> str:
    """Who holds the lock, for whoever is refused it."""
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command})


def _holder(folder: Path) -> str:
    """What the holder of the lock wrote, in words."""
    try:
        said = json.loads((folder / FILE).read_text(encoding="utf-8"))
        what = " ".join(str(said["command"]).split())[:SHOWN]
        return f"process {said['pid']} on {said['host']} since {said['since']} ({what})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process, which has not yet said which"
