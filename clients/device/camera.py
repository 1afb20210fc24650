"""What a camera program leaves: pairs of a picture, or the frames of a clip, and a `.json` in a folder, each
taken once and removed.

The folder is the only thing that the two programs share, and either may lose power at any moment.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from cdc_flower.config import ConfigError
from cdc_flower.disk import keep_names
from clients.device.feed import Feed, Item
from clients.device.rows import MOST_ROW, BadItem, behind, bytes_of, item, named, several, there

MOST_BAD = 512  # files that are kept for somebody to look at; the oldest pairs go first, the newest stays
TAKEN, BAD = "taken", "bad"
_log = logging.getLogger(__name__)


def camera(path: Path, fed: str, frames: int = 0) -> Feed:
    """A folder into which another program puts pairs: a picture, and a file `NAME.json` that says `{"image":
    name, "question": words}`; of a clip its frames, and `{"frames": [name, ...], ...}`.

    The pictures come first. A pair is there when its `.json` is, so that is written under another ending and
    renamed. A name is used once. A pair is removed when its sample lies in the spool; what cannot be used is
    moved into `bad/`.

    Args:
        fed: key of the last item that was spooled.
        frames: that the student reads of a clip; 0 = it reads pictures.

    Raises:
        ConfigError: the folder cannot be written.
    """
    found = _Camera(there(path), frames)
    found.begin(fed)
    return found


@dataclass
class _Camera:
    """See `camera`. A pair that is read gets a number: its `.json` is renamed to `taken/NUMBER.json`, and the
    key of its item is that number. Whatever was spooled when power went is known by the last key.

    Attributes:
        number: of the last pair that was taken.
        waiting: items that were given and are not spooled.
        bad: why pairs were set aside, until it is said.
    """

    path: Path
    frames: int
    number: int = 0
    waiting: list[Item] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def begin(self, fed: str) -> None:
        """Remove what was spooled when the device was stopped, and take up what was not."""
        last = _number(fed.removeprefix("pair ")) or 0
        try:
            for name in (TAKEN, BAD):
                (self.path / name).mkdir(exist_ok=True)
            numbers = {n: p for p in (self.path / TAKEN).iterdir() if (n := _number(p.stem)) is not None}
        except OSError as err:
            raise ConfigError(
                f"feed '{self.path}': {err.strerror}; allowed: a folder that can be written"
            ) from None
        self.number = max([last, *numbers])
        for number, path in sorted(numbers.items()):
            if number <= last:
                self._remove(path)
            else:
                self._add(path, number)
        self._say()

    def poll(self, most: int) -> Sequence[Item]:
        """See `Feed`."""
        if len(self.waiting) < most:
            try:
                self._take(most - len(self.waiting))
            except OSError as err:
                _log.warning("'%s' cannot be read now: %s", self.path, err.strerror)
        self._say()
        return self.waiting[:most]

    def _say(self) -> None:
        """One line for all that was set aside since the last."""
        if self.bad:
            _log.warning("pairs are set aside in '%s': %s", self.path / BAD, several(self.bad))
            self.bad.clear()

    def _take(self, most: int) -> None:
        with os.scandir(self.path) as entries:
            there = [e for e in entries if e.name.endswith(".json") and not e.name.startswith(".")]
        oldest = sorted((e.stat(follow_symlinks=False).st_mtime_ns, e.name) for e in there)[:most]
        taken, failed = list[tuple[Path, int]](), None
        try:
            for _, name in oldest:
                path = self.path / TAKEN / f"{self.number + 1:012d}.json"
                try:
                    os.rename(self.path / name, path)
                except OSError as err:  # its program took it back, say; others may be taken
                    failed = err
                    continue
                self.number += 1
                taken.append((path, self.number))
            if taken:  # on the disk before anybody hears of these numbers
                keep_names(self.path / TAKEN)
                keep_names(self.path)
        finally:  # what was renamed is found under its old name no more
            for path, number in taken:
                self._add(path, number)
        if failed is not None:
            raise failed

    def _add(self, path: Path, number: int) -> None:
        row = b""
        try:
            row = bytes_of(path.parent, path.name, MOST_ROW, follow=False)
            self.waiting.append(item(self.path, row, f"pair {number}", False, self.frames))
        except BadItem as err:
            self.bad.append(str(err))
            self._set_aside(path, row)

    def _set_aside(self, path: Path, row: bytes) -> None:
        bad = self.path / BAD
        for i, name in enumerate(named(row)):
            with suppress(OSError):
                if not stat.S_ISDIR((self.path / name).lstat().st_mode):  # `bad` itself is none of its files
                    os.rename(self.path / name, bad / f"{path.stem}{f'-{i}' if i else ''} {name[-200:]}")
        with suppress(OSError):
            os.rename(path, bad / path.name)
            for name in _oldest(os.listdir(bad)):
                _delete(bad / name)

    def _remove(self, path: Path) -> None:
        row = b""
        with suppress(BadItem):
            row = bytes_of(path.parent, path.name, MOST_ROW, follow=False)
        for name in named(row):
            with suppress(OSError):
                os.unlink(self.path / name)
        with suppress(OSError):
            path.unlink()

    def spooled(self, key: str) -> None:
        """See `Feed`: these pairs are removed."""
        left = behind(self.waiting, key)
        for done in self.waiting[: len(self.waiting) - len(left)]:
            self._remove(self.path / TAKEN / f"{int(done.key.removeprefix('pair ')):012d}.json")
        self.waiting = left

    def place(self) -> str:
        """See `Feed`: what cannot be used is moved away."""
        return ""

    def asked(self, round: int) -> Sequence[Item]:
        """See `Feed`: time is not in rounds."""
        return ()


def _oldest(names: Iterable[str]) -> Iterator[str]:
    """Files of the pairs, the newest left out, with which there are more than `MOST_BAD`."""
    newest_first, kept = sorted(names, reverse=True), 0
    for _, of in groupby(newest_first, lambda name: name[:12]):
        files = list(of)
        if kept and kept + len(files) > MOST_BAD:
            yield from files
        else:
            kept += len(files)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 18 else None
