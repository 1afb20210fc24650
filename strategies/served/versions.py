"""Versions that a cloud can go back to, and the request to do so.

A version is kept as the checkpoint of the round that made it: a second name of the same file, so that it
costs no writing. Of a kept checkpoint only the parts `PARTS` are put back: the versions of the adapter, and
what the cloud had learned when it made this one. The ledger, what each device has and how far rounds have
come stay as they are: devices that are ahead are recognised by the digest of their adapter, and are brought
back by an update that stands alone. The next version takes the next number again and names another adapter;
files of the line that was left are removed as soon as it is made.

A request is a file, written whole, that is read between two rounds and removed when a checkpoint holds what
it asked for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdc_flower import checkpoint, disk
from cdc_flower.checkpoint import CheckpointError, Part, Saved

FOLDER = "versions"  # in the run folder
REQUEST = "rollback.json"  # in the folder of the cloud
PARTS = ("mirror", "cloud", "gate", "guard")
NEEDED = ("mirror", "cloud")
_NAME = re.compile(r"version-(\d{6,})\.round-(\d{6,})\.ckpt")


class RollbackError(ValueError):
    """A version that cannot be gone back to; the message says why."""


def kept(run: Path) -> dict[int, tuple[Path, int]]:
    """Version -> its file and the round that made it, oldest first.

    Args:
        run: the run folder.
    """
    folder = run / FOLDER
    names = [(p, m) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))] if folder.is_dir() else []
    return dict(sorted((int(m[1]), (p, int(m[2]))) for p, m in names))


def keep(run: Path, version: int, round: int, most: int) -> None:
    """Keep the checkpoint of a round as that of the version it made; later versions are of another line.

    Args:
        most: that are kept, this one among them.

    Raises:
        DiskError: the disk does not take it.
    """
    source = checkpoint.path_of(run / "checkpoints", round)
    target = run / FOLDER / f"version-{version:06d}.round-{round:06d}.ckpt"
    with disk.writing(target):
        target.parent.mkdir(exist_ok=True)
        temp = target.with_suffix(disk.PART)
        temp.unlink(missing_ok=True)
        try:
            os.link(source, temp)
        except OSError:  # a file system without second names
            shutil.copyfile(source, temp)
        os.replace(temp, target)
        older = [v for v in kept(run) if v < version]
        left = {version, *older[len(older) - min(most - 1, len(older)) :]}
        for other, (path, _) in kept(run).items():
            if other not in left:
                path.unlink(missing_ok=True)
        for path in target.parent.iterdir():
            if (m := _NAME.fullmatch(path.name)) and int(m[1]) == version and path != target:
                path.unlink(missing_ok=True)


def go_back(run: Path, version: int, parts: Mapping[str, Saved]) -> None:
    """Put the parts of a kept version back.

    Args:
        parts: the method's.

    Raises:
        RollbackError: no such version, a file that is damaged, or a method that has no versions; what was
            put back by then is no longer of one version.
    """
    if lacks := [name for name in NEEDED if name not in parts]:
        raise RollbackError(f"the method has no part '{lacks[0]}', and with it no versions to go back to")
    have = kept(run)
    if version not in have:
        raise RollbackError(f"version {version} is not kept; kept: {', '.join(map(str, have)) or 'none'}")
    path, round = have[version]
    try:
        saved: Mapping[str, Part] = checkpoint.read(path, round)
        for name in PARTS:
            if name in parts:
                parts[name].load(saved[name])
    except (OSError, CheckpointError, KeyError, TypeError, ValueError) as err:
        raise RollbackError(f"version {version} cannot be read: {err}") from None


def request(cloud: Path, version: int) -> None:
    """Ask for a version.

    Args:
        cloud: the folder of the cloud.

    Raises:
        DiskError: the disk does not take it.
    """
    disk.replace(cloud / REQUEST, json.dumps({"version": version}).encode(), kept=True)


def requested(cloud: Path) -> int | None:
    """The version that is asked for, None where none is; what is no request is removed.

    Args:
        cloud: the folder of the cloud.
    """
    try:
        said: Any = json.loads((cloud / REQUEST).read_text(encoding="utf-8"))
        return int(said["version"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):  # 1e999, [[[...
        forget(cloud)
        return None


def forget(cloud: Path) -> None:
    """Remove the request."""
    (cloud / REQUEST).unlink(missing_ok=True)
