"""What may stand under a key of a reply, and its one array: type, size and bounds, looked at before use.

Every kind has `bytes` (the most that it takes of a message) and `read` (the value, or `ReplyError`); an array
also has `weigh`, which looks at all that needs no copy. Errors are one printable line, whatever was sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cdc_flower.wire import keys
from cdc_flower.wire.arrays import read_flat
from cdc_flower.wire.frame import FrameError

LONGEST = 200  # characters that are kept of a text in which a device says what it likes
LARGEST = 1e30  # of a float without a bound of its own: so many of any round and device have a finite sum


class ReplyError(FrameError):
    """A reply that is refused; the message says what was wrong and what is allowed."""


def clean(text: Any, most: int = LONGEST) -> str:
    """A text of a device as one printable line of at most `most` characters."""
    if not isinstance(text, str) or not text:
        return "no reason given"
    line = "".join(c if c.isprintable() else " " for c in text[:most])
    return line if len(text) <= most else line[: most - 1] + "…"


def _shown(value: Any) -> str:
    """A value in an error: never longer than a line, whatever it is."""
    if isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 2**64 else f"an integer of {value.bit_length()} bits"
    return type(value).__name__


@dataclass(frozen=True)
class Number:
    """One number of a type, from `least` to `most`; a bool is none."""

    kind: type[int] | type[float]
    least: float = 0
    most: float = LARGEST

    @property
    def bytes(self) -> int:
        """The most that it takes of a message."""
        return 16

    def read(self, value: Any) -> int | float:
        """The value.

        Raises:
            ReplyError: another type, not finite, out of bounds.
        """
        good = isinstance(value, self.kind) and not isinstance(value, bool)
        if not good or not self.least <= value <= self.most:
            raise ReplyError(f"{_shown(value)}; allowed: {self}")
        return self.kind(value)

    def __str__(self) -> str:
        return f"{self.kind.__name__} from {self.least} to {self.most}"


@dataclass(frozen=True)
class Numbers:
    """A list of exactly `length` numbers."""

    each: Number
    length: int

    @property
    def bytes(self) -> int:
        """The most that it takes of a message."""
        return 16 * (1 + self.length)

    def read(self, value: Any) -> list[int | float]:
        """The values.

        Raises:
            ReplyError: no list, another length, or a number that is none.
        """
        if not isinstance(value, list) or len(value) != self.length:
            found = f"a list of {len(value)}" if isinstance(value, list) else _shown(value)
            raise ReplyError(f"{found}; allowed: a list of {self.length}, each {self.each}")
        return [self.each.read(number) for number in value]


@dataclass(frozen=True)
class Bytes:
    """Exactly `length` bytes."""

    length: int

    @property
    def bytes(self) -> int:
        """The most that it takes of a message."""
        return 16 + self.length

    def read(self, value: Any) -> bytes:
        """The value.

        Raises:
            ReplyError: no bytes, or another number of them.
        """
        if not isinstance(value, bytes) or len(value) != self.length:
            found = f"{len(value)} bytes" if isinstance(value, bytes) else _shown(value)
            raise ReplyError(f"{found}; allowed: {self.length} bytes")
        return bytes(value)


@dataclass(frozen=True)
class Texts:
    """A list of at most `most` texts of at most `longest` characters each."""

    most: int
    longest: int

    @property
    def bytes(self) -> int:
        """The most that it takes of a message."""
        return 16 + self.most * (16 + 4 * self.longest)

    def read(self, value: Any) -> list[str]:
        """The texts.

        Raises:
            ReplyError: no list, too many, too long, or no texts.
        """
        allowed = f"allowed: a list of at most {self.most} texts of at most {self.longest} characters"
        if not isinstance(value, list) or len(value) > self.most:
            found = f"a list of {len(value)}" if isinstance(value, list) else _shown(value)
            raise ReplyError(f"{found}; {allowed}")
        for text in value:
            if not isinstance(text, str) or len(text) > self.longest:
                found = f"a text of {len(text)} characters" if isinstance(text, str) else _shown(text)
                raise ReplyError(f"{found}; {allowed}")
            if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise ReplyError(f"a text that is not Unicode; {allowed}")
        return list(value)


Field = Number | Numbers | Bytes | Texts
"""What stands under one key of a record."""


@dataclass(frozen=True)
class Frame:
    """At most `most` bytes as one opaque array; a reply may be without."""

    most: int
    required = False

    @property
    def bytes(self) -> int:
        """The most that it takes of a message."""
        return self.most

    def weigh(self, array: Any) -> None:
        """Look at all that needs no copy.

        Raises:
            ReplyError: too long, or not declared as a frame.
        """
        if len(array.data) > self.most:
            raise ReplyError(f"the frame has {len(array.data)} bytes; allowed: up to {self.most}")
        _declared(array, keys.STYPE, "uint8", (len(array.data),))

    def read(self, data: bytes) -> bytes:
        """The frame."""
        return data


@dataclass(frozen=True)
class Flat:
    """One flat array of Flower's (size,), all of it finite; a reply may lack one that is not required."""

    size: int
    dtype: str
    required: bool = True

    @property
    def bytes(self) -> int:
        """The most that it takes of a message: its values and numpy's header."""
        return self.size * np.dtype(self.dtype).itemsize + 1024

    def weigh(self, array: Any) -> None:
        """Look at all that needs no copy.

        Raises:
            ReplyError: another size, serialisation, dtype or shape than this.
        """
        if len(array.data) > self.bytes:
            raise ReplyError(f"the array has {len(array.data)} bytes; allowed: {self}")
        _declared(array, "numpy.ndarray", self.dtype, (self.size,))

    def read(self, data: bytes) -> np.ndarray:
        """The array.

        Raises:
            ReplyError: its header says something else, values are absent, or not finite.
        """
        try:
            return read_flat(data, self.size, np.dtype(self.dtype).str)
        except FrameError as err:
            raise ReplyError(str(err)) from None

    def __str__(self) -> str:
        return f"{self.dtype} of shape ({self.size},)"


def _declared(array: Any, stype: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Refuse an array that says of itself something else."""
    if (array.stype, array.dtype) != (stype, dtype) or tuple(array.shape[: len(shape) + 1]) != shape:
        said = ", ".join(map(_shown, array.shape[:4])) + (", ..." if len(array.shape) > 4 else "")
        raise ReplyError(
            f"the array is {clean(array.stype, 40)} {clean(array.dtype, 40)} of shape ({said}); "
            f"allowed: {stype} {dtype} of shape {shape}"
        )
