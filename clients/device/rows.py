"""Rows `{"image": name, "question": words}`, of clips `{"frames": [name, ...], ...}`, and the pictures that
they name; other programs write them, and all of it may be hostile.

A name is that of a file in the feed's folder and nothing else; no more than a bound is read; a picture is
opened as data sets are (`cdc_flower.data.bitmaps`).
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cdc_flower.border import one_line
from cdc_flower.config import ConfigError
from cdc_flower.data.bitmaps import MAX_BYTES, MAX_PIXELS, size_of
from cdc_flower.data.features import spread
from clients.device.feed import MOST_FRAMES, Item, unlike

MOST_ROW = 2**16  # bytes of a row, and of a pair's file
MOST_PIXELS = 4 * MAX_PIXELS  # of the frames of a clip that are read, together
HOW = 'allowed: {"image": name, "question": words}, of a clip {"frames": [name, ...], "question": words}'


class BadItem(ValueError):
    """An item that cannot be used; the message says why."""


@dataclass(frozen=True)
class Row:
    """What a row says.

    Attributes:
        question: its words, with single spaces.
        files: name of its picture, or names of the frames of its clip in their order.
        clip: whether they are frames.
    """

    question: str
    files: tuple[str, ...]
    clip: bool


def there(path: Path) -> Path:
    """The folder of a feed, which is made where it alone lacks.

    Raises:
        ConfigError: there is none.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as err:
        why = f"{err.strerror}; allowed: a folder, or one that can be made (setting 'feed-path')"
        raise ConfigError(f"feed '{path}': {why}") from None
    return path


def behind(items: list[Item], key: str) -> list[Item]:
    """The items behind the one of this key; all where there is none."""
    return items[next((i + 1 for i, item in enumerate(items) if item.key == key), 0) :]


def item(folder: Path, row: bytes, key: str, follow: bool, frames: int = 0) -> Item:
    """What a row asks; of a clip with the frames alone that are read, in their order.

    Args:
        frames: that the student reads of a clip; 0 = it reads pictures.

    Raises:
        BadItem: see there.
    """
    said = read(row)
    if wrong := unlike(said.clip, frames):
        raise BadItem(wrong)
    names = [said.files[i] for i in spread(len(said.files), max(1, frames))]
    found, size, pixels, left = dict[str, bytes](), (0, 0), 0, MAX_BYTES
    for name in dict.fromkeys(names):
        found[name] = bytes_of(folder, name, left, follow)
        own = size_of(found[name])
        if isinstance(own, str):
            raise BadItem(f"{name!a}: {own}")
        size = size if pixels else own
        pixels, left = pixels + own[0] * own[1], left - len(found[name])
        if own != size:
            raise BadItem(f"{name!a} has {own[0]}x{own[1]} pixels, the first frame {size[0]}x{size[1]}")
        if pixels > MOST_PIXELS:
            raise BadItem(f"{name!a}: frames of more than {MOST_PIXELS} pixels together")
    pictures = tuple(found[name] for name in names)
    return Item(said.question, pictures if said.clip else pictures[0], key)


def several(why: Sequence[str]) -> str:
    """Some reasons in the length of one: how many, and the first."""
    return one_line(why[0] if len(why) == 1 else f"{len(why)} of them, first {why[0]}")


def read(row: bytes) -> Row:
    """What a row says.

    Raises:
        BadItem: see there.
    """
    if len(row) > MOST_ROW:
        raise BadItem(f"more than {MOST_ROW} bytes")
    try:
        found = json.loads(row)
    except (ValueError, RecursionError) as err:
        raise BadItem(f"no JSON: {err}") from None
    if not isinstance(found, dict):
        raise BadItem(f"no object; {HOW}")
    if "image" in found and "frames" in found:
        raise BadItem(f"'image' and 'frames'; {HOW}")
    clip = "frames" in found
    names = found["frames"] if clip else [found.get("image")]
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_FRAMES:
        raise BadItem(f"field 'frames' is no list of 1 to {MOST_FRAMES} names; {HOW}")
    field_name = "frames" if clip else "image"
    files = tuple(_words(field_name, name) for name in names)
    question = _words("question", found.get("question"))
    for name in files:
        if not _is_name(name):
            raise BadItem(f"field '{field_name}' = {name[:60]!a}; allowed: the name of a file in the folder")
    return Row(" ".join(question.split()), files, clip)


def named(row: bytes) -> tuple[str, ...]:
    """The files that a row names, each once, whatever else is wrong with it."""
    try:
        found = json.loads(row[:MOST_ROW])
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, dict):
        return ()
    frames = found.get("frames")
    names = [found.get("image"), *(frames[:MOST_FRAMES] if isinstance(frames, list) else ())]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and _is_name(name)))


def _is_name(name: str) -> bool:
    """Whether it is that of a file in a folder, and no path."""
    text = not any("\ud800" <= character <= "\udfff" for character in name)  # no half of a surrogate pair
    return text and bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def _words(field_name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadItem(f"field '{field_name}' is no text; {HOW}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadItem(f"field '{field_name}' = {value[:24]!a}: no text in Unicode") from None
    return value


def bytes_of(folder: Path, name: str, most: int, follow: bool) -> bytes:
    """A file of a folder.

    Raises:
        BadItem: none of that name, none that can be read, or one with more bytes than `most`.
    """
    try:
        with opened(folder / name, follow) as file:
            data = file.read(most + 1)
    except OSError as err:
        raise BadItem(f"{name[:60]!a}: {err.strerror} in '{folder}'") from None
    if len(data) > most:
        raise BadItem(f"{name[:60]!a}: more than {most} bytes")
    return data


def opened(path: Path, follow: bool) -> IO[bytes]:
    """A file to read. A folder, a pipe or a device is none: to read it might never end.

    Raises:
        OSError: it cannot be opened.
    """
    own = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(own).st_mode):
        os.close(own)
        raise OSError(errno.EINVAL, "is no file")
    return os.fdopen(own, "rb")
