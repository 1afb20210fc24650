"""Bits, symbols and places: the small integer forms that both directions share.

Rows of bits with the most significant first, symbols of 4 bits, signed symbols folded to unsigned ones, and
rising places as gaps. Each exists once, with its padding checked where it is read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire.frame import FrameError

_FLUSH = 2**18  # bits that may wait as bytes


class BitWriter:
    """A row of bits, most significant first, that is packed while it grows."""

    def __init__(self):
        self._done: list[bytes] = []
        self._open: list[NDArray[np.uint8]] = []
        self._waiting = 0

    def add(self, bits: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
        """Append bits (n,), each 0 or 1."""
        self._open.append(bits.view(np.uint8))
        self._waiting += len(bits)
        if self._waiting >= _FLUSH:
            row = np.concatenate(self._open)
            whole = len(row) & ~7
            self._done.append(np.packbits(row[:whole]).tobytes())
            self._open, self._waiting = [row[whole:].copy()], len(row) - whole

    def extend(self, other: BitWriter) -> None:
        """Append all bits of another row, which must not be used after."""
        for some in other._done:
            packed = np.frombuffer(some, np.uint8)
            for start in range(0, len(packed), _FLUSH // 8):
                self.add(np.unpackbits(packed[start : start + _FLUSH // 8]))
        for bits in other._open:
            self.add(bits)

    def tobytes(self) -> bytes:
        """The row, zero-padded to a byte."""
        rest = np.packbits(np.concatenate(self._open)).tobytes() if self._open else b""
        return b"".join((*self._done, rest)) if self._done else rest


def packed_row(data: bytes | memoryview, count: int, what: str) -> NDArray[np.uint8]:
    """The bytes uint8 of a row of `count` bits that `BitWriter` or `np.packbits` gave, for `read_bits`.

    Raises:
        FrameError: another number of bytes than the bits need, or padding that is not zero.
    """
    if len(data) != (count + 7) // 8:
        raise FrameError(f"{what}: {len(data)} bytes for {count} bits")
    if count % 8 and data[-1] & (0xFF >> count % 8):
        raise FrameError(f"{what}: padding that is not zero")
    return np.frombuffer(data, np.uint8)


def read_bits(packed: NDArray[np.uint8], start: int, count: int) -> NDArray[np.uint8]:
    """Bits `start : start + count` of a row, uint8 (count,) of 0 and 1; the row must hold them."""
    first, skip = start >> 3, start & 7
    return np.unpackbits(packed[first : (start + count + 7) >> 3], count=skip + count)[skip:]


def pack_nibbles(symbols: NDArray[np.uint8]) -> bytes:
    """Symbols (n,) of 4 bits, two a byte, the first in the low half; zero-padded."""
    even = np.append(symbols, np.zeros(len(symbols) % 2, np.uint8))
    return (even[::2] | even[1::2] << np.uint8(4)).tobytes()


def unpack_nibbles(data: bytes, count: int, what: str) -> NDArray[np.uint8]:
    """The `count` symbols uint8 of `pack_nibbles`.

    Raises:
        FrameError: another number of bytes, or padding that is not zero.
    """
    if len(data) != (count + 1) // 2:
        raise FrameError(f"{what}: {len(data)} bytes for {count} symbols of 4 bits")
    pairs = np.frombuffer(data, np.uint8)
    symbols = np.stack((pairs & 15, pairs >> np.uint8(4)), axis=1).ravel().astype(np.uint8)
    if symbols[count:].any():
        raise FrameError(f"{what}: padding that is not zero")
    return symbols[:count]


def fold(symbols: NDArray[np.signedinteger]) -> NDArray[np.signedinteger]:
    """Signed symbols to 0, 1, 2, ... in the order 0, -1, 1, -2, ...; of the same type, which must hold
    them."""
    return np.where(symbols < 0, -2 * symbols - 1, 2 * symbols)


def unfold(folded: NDArray[np.integer]) -> NDArray[np.integer]:
    """The inverse of `fold`, of the same type, which must be signed."""
    return (folded >> 1) ^ -(folded & 1)


def gaps(places: NDArray[np.integer], last: int = -1) -> NDArray[np.integer]:
    """How many places lie between each of the strictly rising ones and the one before it, `last` at first."""
    return np.diff(places, prepend=places.dtype.type(last)) - 1


def places(gaps: NDArray[np.int64], last: int = -1) -> NDArray[np.int64]:
    """The inverse of `gaps`; writes into its argument."""
    gaps += 1
    if len(gaps):
        gaps[0] += last
    return np.cumsum(gaps, out=gaps)
