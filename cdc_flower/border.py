"""What people type, at the border: text that may be used, and places that can be written; what they are told.

Each function says in a few words what is wrong, or None; who asks adds the name of the option or setting.
"""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

MOST_CHARS = 4096
"""The longest text that an option or a setting may be; the longest path of Linux."""
MOST_WORDS = 1000  # characters of a message


def odd_text(text: str) -> str | None:
    """Why a text cannot be a value: characters that nobody can see or write down, or too many of them."""
    if len(text) > MOST_CHARS:
        return f"{len(text)} characters; allowed: up to {MOST_CHARS}"
    for char in text:
        if unicodedata.category(char) in ("Cc", "Cs"):  # control characters, and bytes that are no UTF-8
            return f"character {char!a}; allowed: printable text in UTF-8"
    return None


def one_line(message: str) -> str:
    """A message that fits on one line of a terminal, whatever stands in it."""
    plain = " ".join(message.split()).encode("utf-8", "backslashreplace").decode("utf-8")
    plain = "".join(c if unicodedata.category(c) != "Cc" else ascii(c)[1:-1] for c in plain)
    if len(plain) > MOST_WORDS:
        plain = f"{plain[: MOST_WORDS // 2]} ... {plain[-MOST_WORDS // 2 :]}"
    return plain


def first_line(err: BaseException) -> str:
    """The first line of what an error says; its type, where it says nothing."""
    return (str(err).strip() or type(err).__name__).splitlines()[0]


def nearest(typed: str, known: Iterable[str]) -> str:
    """ "did you mean cdc? ", of the name that is most like what was typed; "" where none is."""
    return "".join(f"did you mean {name}? " for name in get_close_matches(typed, list(known), 1))


def no_folder(path: Path) -> str | None:
    """Why `path` is no folder that can be written or made; nothing is left on the disk."""
    try:
        there = path.expanduser().absolute()
        if _exists(there) and not there.is_dir():
            return "is a file; allowed: a folder"
        while not _exists(there):
            there = there.parent
        if not there.is_dir():
            return f"'{there}' is a file; allowed: a path of folders"
        with tempfile.TemporaryDirectory(prefix=".cdc-flower-", dir=there):
            return None
    except (OSError, RuntimeError, ValueError) as err:  # RuntimeError: no home for ~; ValueError: NUL
        return f"{_why(err)}; allowed: a folder that can be written"


def no_file(path: Path) -> str | None:
    """Why `path` is no file that can be written into a folder that is there; nothing is left on the disk."""
    try:
        there = path.expanduser().absolute()
        if _exists(there) and there.is_dir():
            return "is a folder; allowed: a file in a folder that is there"
        if not there.parent.is_dir():
            return "no such folder; allowed: a file in a folder that is there"
    except (OSError, RuntimeError, ValueError) as err:
        return f"{_why(err)}; allowed: a file in a folder that is there"
    return no_folder(there.parent)


def _exists(path: Path) -> bool:
    """As `Path.exists`, but a name that no file can have is an error in every version of Python."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _why(err: Exception) -> str:
    return (err.strerror if isinstance(err, OSError) else None) or str(err)
