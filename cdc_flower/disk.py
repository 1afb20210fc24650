"""Files that are written whole or not at all, and one line where a disk does not take them.

A file is written beside its name and moved over it (`os.replace`). A disk that is full, over a quota or read
only is no fault of the settings and none of a device: it ends the command with one line that names the file
and the reason, and what was written before is what a resumed command goes on from.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cdc_flower.config import RunError

PART = ".part"  # ends the name of a file that is being written


class DiskError(RunError):
    """A file cannot be written; the message names it and says why."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What raises an `OSError` in the `with` block raises a `DiskError` about `path`."""
    try:
        yield
    except OSError as err:
        raise DiskError(
            f"'{path}' cannot be written: {err.strerror or err}; what was written before is kept, and the "
            "command can be resumed once there is room"
        ) from None


@contextmanager
def whole(path: Path, *, kept: bool = False) -> Iterator[IO[bytes]]:
    """A file that appears under its name when everything is in it, and not at all where something raises.

    Args:
        path: of the file.
        kept: it lies on the disk, name and all, when the block has ended, whenever power goes. That takes
            milliseconds to seconds, so it is for what somebody was promised, not for each of many files.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        with part.open("xb") as file:
            yield file
            if kept:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
        if kept:
            keep_names(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def keep_names(folder: Path) -> None:
    """The names in a folder are on the disk; a no-op where folders cannot be opened (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def replace(path: Path, data: bytes, *, kept: bool = False) -> None:
    """Write a file, whole or not at all.

    Args:
        path: of the file.
        data: all that is in it.
        kept: see `whole`.

    Raises:
        DiskError: it cannot be written; the file that was there is as it was.
    """
    with writing(path), whole(path, kept=kept) as file:
        file.write(data)
