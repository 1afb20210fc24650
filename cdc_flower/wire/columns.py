"""Columns and counts of a frame: integers stored the smallest of three lossless ways, and varints.

What is read is bounded before it is allocated: a column by the number of integers its reader expects, a
compressed part by the size it declares.
"""

from __future__ import annotations

import threading

import numpy as np
import zstandard
from numpy.typing import NDArray

from cdc_flower.wire import coder, coder_models
from cdc_flower.wire.frame import FrameError

RAW, ZSTD, CODED = 0, 1, 2  # how a column is stored
_LEAST = {ZSTD: 10, CODED: 6}  # bytes that a way takes at least
_SMALL = 2**16  # bytes up to which the strongest zstd level is still quick
_LOCAL = threading.local()


def pack_column(values: NDArray[np.integer], itemsize: int) -> bytes:
    """A column of integers in 0..2**(8*itemsize)-1, stored the smallest of three ways behind a flag byte.

    Ways: little-endian integers as they are, those by zstd, or `coder.encode`. Never more than
    `1 + len * itemsize` bytes.
    """
    raw = np.asarray(values).astype(f"<u{itemsize}").tobytes()
    ways = {RAW: raw}
    if len(raw) > _LEAST[ZSTD]:
        ways[ZSTD] = _compressor(19 if len(raw) < _SMALL else 3).compress(raw)
    if len(raw) > _LEAST[CODED] and int(np.max(values)) <= coder_models.MAX_VALUE:
        ways[CODED] = coder.encode([values])
    flag = min(ways, key=lambda f: (len(ways[f]), f))
    return bytes((flag,)) + ways[flag]


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """This thread's compressor of a level; making one takes longer than a small column."""
    if not hasattr(_LOCAL, "by_level"):
        _LOCAL.by_level = {}
    if level not in _LOCAL.by_level:
        _LOCAL.by_level[level] = zstandard.ZstdCompressor(level=level)
    return _LOCAL.by_level[level]


def unpack_column(data: bytes, count: int, itemsize: int, what: str) -> NDArray[np.unsignedinteger]:
    """The `count` integers of a column, unsigned of `itemsize` bytes.

    Args:
        data: what `pack_column` gave.
        count: how many integers; bounded by the caller.
        itemsize: bytes of each, 1, 2 or 4.
        what: the column's name in errors.

    Raises:
        FrameError: unknown flag, wrong length, damaged content.
    """
    if not data:
        raise FrameError(f"{what}: empty column")
    flag, body = data[0], data[1:]
    if flag == CODED:
        (values,) = coder.decode(body, [count])
        if count and values.max() >= 1 << (8 * itemsize):
            raise FrameError(f"{what}: {values.max()} does not fit {itemsize} bytes")
        return values.astype(f"<u{itemsize}")
    if flag == ZSTD:
        body = inflate(body, count * itemsize, what)
    elif flag != RAW:
        raise FrameError(f"{what}: unknown column flag {flag}; allowed: 0, 1, 2")
    if len(body) != count * itemsize:
        raise FrameError(f"{what}: {len(body)} bytes for {count} integers of {itemsize} bytes")
    return np.frombuffer(body, f"<u{itemsize}")


def inflate(data: bytes, size: int, what: str) -> bytes:
    """Decompress one zstd frame that must declare exactly `size` bytes; nothing is allocated before that is
    checked.

    Raises:
        FrameError: another size declared, not zstd, damaged, or bytes after the end.
    """
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared != size:
            raise FrameError(f"{what}: compressed data declare {declared} bytes, expected {size}")
        if size == 0:
            raise FrameError(f"{what}: compressed data of nothing")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as err:
        raise FrameError(f"{what}: {err}") from None


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, low ones first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int, what: str) -> tuple[int, int]:
    """The integer at `at` and the place after it.

    Raises:
        FrameError: cut short, or above 2**42.
    """
    value = 0
    for k in range(6):
        if at + k >= len(data):
            break
        value |= (data[at + k] & 0x7F) << (7 * k)
        if data[at + k] < 0x80:
            return value, at + k + 1
    raise FrameError(f"{what}: integer cut short or too large")
