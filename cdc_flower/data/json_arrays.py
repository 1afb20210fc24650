"""Large JSON files, one object at a time: annotation files of data sets are one object with long lists in it,
or one long list, and ten times as large in memory as on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cdc_flower.border import first_line
from cdc_flower.data.pictures import PackError

CHUNK = 2**20
ENDS = tuple(" \t\r\n,:]}")
LONGEST = 16 * 2**20  # characters of a single value


class _Reader:
    """Values of a JSON text that is read in chunks."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.text, self.at, self.before = file, "", 0, 0
        self.decoder = json.JSONDecoder()

    def more(self) -> bool:
        chunk = self.file.read(CHUNK) if len(self.text) - self.at < LONGEST else ""
        self.before += self.at if chunk else 0
        self.text, self.at = (self.text[self.at :] + chunk, 0) if chunk else (self.text, self.at)
        return bool(chunk)

    def next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def take(self, allowed: str) -> str:
        found = self.next()
        if not found or found not in allowed:
            what = f"'{found}'" if found else "the end of the file"
            raise ValueError(f"{what} found; allowed: {' or '.join(allowed)}")
        self.at += 1
        return found

    def value(self) -> Any:
        while True:
            self.next()
            try:
                found, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if self.more():
                    continue
                raise
            if self.text[end : end + 1] not in ENDS and self.more():  # a number may go on: "0" of "0.5"
                continue
            self.at = end
            return found


def objects(path: Path, *names: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The objects in lists of a JSON file.

    Args:
        path: of the file: an object with these lists in it, in any order, or, without names, a list.
        names: of the lists; everything else in the file is passed over.

    Yields:
        (name of the list, place in it, object); the name is "" where the file is a list.

    Raises:
        PackError: not JSON, a list that is absent, or in one of them something else than an object.
    """
    seen: list[str] = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            reader = _Reader(file)
            try:
                if names:
                    reader.take("{")
                    end = reader.next()
                    while end != "}":
                        seen.append(str(reader.value()))
                        reader.take(":")
                        if reader.next() == "[" or seen[-1] in names:
                            yield from _items(reader, path, seen[-1], seen[-1] in names)
                        else:
                            reader.value()
                        end = reader.take(",}")
                else:
                    reader.next()
                    yield from _items(reader, path, "", True)
            except (ValueError, RecursionError) as err:
                if isinstance(err, PackError):
                    raise
                where = f"at character {reader.before + reader.at}"
                raise PackError(f"{path}: not JSON as expected: {where}: {first_line(err)}") from None
    except OSError as err:
        raise PackError(f"{path}: cannot be read: {err}") from None
    for name in names:
        if name not in seen:
            raise PackError(f"{path}: no list '{name}' in it; found: {', '.join(seen) or 'nothing'}")


def _items(reader: _Reader, path: Path, name: str, wanted: bool) -> Iterator[tuple[str, int, dict[str, Any]]]:
    reader.take("[")
    if reader.next() == "]":
        reader.take("]")
        return
    end, place = "", 0
    while end != "]":
        found = reader.value()
        if wanted:
            if not isinstance(found, dict):
                raise PackError(f"{path}: {name}[{place}]: {type(found).__name__} found; allowed: an object")
            yield name, place, found
        place += 1
        end = reader.take(",]")
