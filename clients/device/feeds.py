"""Feeds of a real device that are files which other programs write while they are read.

`folder` is a folder of pictures with a file of questions, `camera` (its own module) what a camera program
leaves. What cannot be used is said in one line and passed over. What was read is known by a key that the
spool keeps in the transaction that keeps the samples (`feed`), so nothing is read twice and nothing is left
out, whenever power goes.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import IO

from cdc_flower.border import one_line
from clients.device.camera import camera
from clients.device.feed import Feed, Item
from clients.device.rows import MOST_ROW, BadItem, behind, bytes_of, item, opened, several, there

QUESTIONS = "questions.jsonl"
LOOKED = 20  # rows, by `first_rows`
MOST_ROWS = 1000  # that are read at a time, so that the agent hears its cloud between rows that are of no use
_log = logging.getLogger(__name__)


def folder(path: Path, fed: str, frames: int = 0) -> Feed:
    """A folder of pictures, and in it a file `questions.jsonl` of rows `{"image": name, "question": words}`,
    of clips `{"frames": [name, ...], "question": words}`.

    Rows are read once, in their order; rows that are appended later are read then. A picture must be there
    before the row that names it.

    Args:
        fed: key of the last item that was spooled.
        frames: that the student reads of a clip; 0 = it reads pictures.

    Raises:
        ConfigError: no such folder.
    """
    return _Folder(there(path), frames, _Place.of(fed))


FEEDS: dict[str, Callable[[Path, str, int], Feed]] = {"folder": folder, "camera": camera}
"""Values of the setting `feed` of `device.toml` that are files -> from path, last key and frames to feed."""


def first_rows(kind: str, path: Path, frames: int) -> str:
    """What is wrong with the first rows of a feed, which is only looked at; "" = nothing, or none is there.

    Args:
        kind: of `FEEDS`.
        path: its folder.
        frames: that the student reads of a clip; 0 = it reads pictures.
    """
    rows = _folder_rows(path) if kind == "folder" else _camera_rows(path)
    bad, looked = list[str](), 0
    for where, row in islice(rows, LOOKED):
        looked += 1
        try:
            item(path, row, "", kind == "folder", frames)
        except BadItem as err:
            bad.append(f"{where}: {err}")
    return f"{len(bad)} of the first {looked} rows cannot be used: {one_line(bad[0])}" if bad else ""


def _folder_rows(path: Path) -> Iterator[tuple[str, bytes]]:
    with suppress(FileNotFoundError), opened(path / QUESTIONS, follow=True) as file:
        for number in count(1):
            row, _ = _line(file)
            if not row:
                return
            if row.strip():
                yield f"'{path / QUESTIONS}', row {number}", row


def _camera_rows(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.glob("[!.]*.json")):
        with suppress(BadItem):
            yield f"'{file}'", bytes_of(path, file.name, MOST_ROW, follow=False)


@dataclass(frozen=True)
class _Place:
    """Behind a row of a file: where it ends, how long it is, and a checksum of it, by which a file that was
    written anew is found.
    """

    end: int = 0
    length: int = 0
    checksum: int = 0

    @classmethod
    def of(cls, key: str) -> _Place:
        kind, *numbers = key.split() or [""]
        known = kind == "row" and len(numbers) == 3 and all(n.isdigit() for n in numbers)
        return cls(*map(int, numbers)) if known else cls()

    def __str__(self) -> str:
        return f"row {self.end} {self.length} {self.checksum}"


@dataclass
class _Folder:
    """See `folder`.

    Attributes:
        at: what was read of the file.
        waiting: items that were given and are not spooled.
    """

    path: Path
    frames: int
    at: _Place
    waiting: list[Item] = field(default_factory=list)

    def poll(self, most: int) -> Sequence[Item]:
        """See `Feed`."""
        bad = list[str]()
        try:
            with opened(self.path / QUESTIONS, follow=True) as file:
                self._go_to(file)
                for _ in range(MOST_ROWS):
                    if len(self.waiting) >= most or (row := self._row(file)) is None:
                        break
                    if not row.strip():
                        continue
                    try:
                        self.waiting.append(item(self.path, row, str(self.at), True, self.frames))
                    except BadItem as err:
                        bad.append(f"the row that ends at byte {self.at.end}: {err}")
        except FileNotFoundError:
            pass  # not yet
        except OSError as err:
            _log.warning("'%s' cannot be read now: %s", self.path / QUESTIONS, err.strerror)
        if bad:
            _log.warning("'%s': rows are left out: %s", self.path / QUESTIONS, several(bad))
        return self.waiting[:most]

    def _go_to(self, file: IO[bytes]) -> None:
        at = self.at
        file.seek(at.end - at.length)
        if at.length and zlib.crc32(file.read(at.length)) != at.checksum:
            _log.warning("'%s' is another file than before: it is read from its beginning", QUESTIONS)
            self.at = _Place()
            file.seek(0)

    def _row(self, file: IO[bytes]) -> bytes | None:
        """The next row that is complete; None where there is none yet. Of one that is too long it is the
        beginning.
        """
        row, last = _line(file)
        if not row or (len(row) <= MOST_ROW and not row.endswith(b"\n") and not _complete(row)):
            return None  # somebody is writing it
        self.at = _Place(file.tell(), len(last), zlib.crc32(last))
        return row

    def spooled(self, key: str) -> None:
        """See `Feed`: rows stay where they are."""
        self.waiting = behind(self.waiting, key)

    def place(self) -> str:
        """See `Feed`: rows that are of no use are not read again."""
        return str(self.at) if self.at.end and not self.waiting else ""

    def asked(self, round: int) -> Sequence[Item]:
        """See `Feed`: time is not in rounds."""
        return ()


def _line(file: IO[bytes]) -> tuple[bytes, bytes]:
    """The next line, of one that is too long its beginning, and what was read of it last; empty where there
    is none, or none that ends and is too long.
    """
    row = last = file.readline(MOST_ROW + 1)
    while len(row) > MOST_ROW and not last.endswith(b"\n"):
        if not (last := file.readline(MOST_ROW)):
            return b"", b""
    return row, last


def _complete(row: bytes) -> bool:
    """Whether the last row of a file is one, although no line end is behind it."""
    try:
        return isinstance(json.loads(row), dict)
    except (ValueError, RecursionError):
        return False
