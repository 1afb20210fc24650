"""Digests of files that are hashed once and then known by what the file system says of them.

Packs and checkpoints have many gigabytes, and every process of a run asks for their digest. What was computed
is kept in the cache folder under paths, sizes, inodes and times of the last change of content and of anything
else (mtime and ctime). A file that was written a moment ago is not trusted: it may change again within one
tick of the clock. Who wants to be sure asks for `fresh`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cdc_flower.data.features import cache_folder
from cdc_flower.disk import whole

WORTH = 16 * 2**20  # bytes of files, from which on hashing takes longer than looking up
SETTLED = 2.0  # seconds since the last change, from which on times tell versions of a file apart


def known(files: Sequence[Path], what: str, make: Callable[[], str], *, fresh: bool = False) -> str:
    """sha256 hex of files, computed where it is not known.

    Args:
        files: those that decide it, in order.
        what: it is the digest of, beside the files.
        make: computes it.
        fresh: compute it anyway.
    """
    stats = [(str(path.resolve()), path.stat()) for path in files]
    if sum(s.st_size for _, s in stats) < WORTH:
        return make()
    seen = [what, *([p, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev] for p, s in stats)]
    name = hashlib.sha256(json.dumps(seen).encode()).hexdigest()
    place = cache_folder() / "digests" / name[:2] / name
    if not fresh:
        with suppress(OSError, UnicodeDecodeError):
            if re.fullmatch("[0-9a-f]{64}", found := place.read_text(encoding="ascii")):
                return found
    began = time.time()
    made = make()
    newest = max((max(s.st_mtime, s.st_ctime) for _, s in stats), default=began)
    same = [path.stat().st_ctime_ns for path in files] == [s.st_ctime_ns for _, s in stats]
    if same and newest + SETTLED <= began:
        with suppress(OSError):  # a cache that cannot be written saves no time, and that is all
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole(place) as file:
                file.write(made.encode())
    return made
