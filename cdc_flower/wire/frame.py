"""One frame for both directions: magic, version, kind, section lengths, payload, checksum.

Flower carries one opaque blob per message (a record per tensor costs about 200 bytes each, more than a whole
update). A frame is that blob: 12 bytes and 4 per section around the payload. The reader takes a cap in bytes,
checks every length before it slices, never unpickles, and raises one typed error. The layout is written down
byte by byte in `docs/wire-format.md`, and golden frames are committed: a reader of format 2 keeps reading
format 2. (Format 1 was never released.)
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum

MAGIC = b"CDCF"
FORMAT = 2
MAX_SECTIONS = 0xFFFF
_HEAD = struct.Struct("<4sBBH")  # magic, format, kind, number of sections
_CRC = struct.Struct("<I")


class FrameError(ValueError):
    """Bytes from the wire that are refused; the message says what was wrong. Nothing of such a frame is
    used."""


class Kind(IntEnum):
    """What a frame carries. Numbers are part of the format and are never reused."""

    TOKEN_BATCH = 1  # device -> cloud: cdc_flower.uplink.token_batch
    UPDATE = 2  # cloud -> device: cdc_flower.downlink.update
    PICTURE_BATCH = 3  # device -> cloud: cdc_flower.uplink.pictures.picture_batch
    LOW_RANK = 4  # both ways: cdc_flower.downlink.low_rank


def envelope(sections: int) -> int:
    """Bytes a frame of so many sections adds to its payload."""
    return _HEAD.size + 4 * sections + _CRC.size


def pack(kind: Kind, *sections: bytes) -> bytes:
    """Put sections into one frame.

    Raises:
        ValueError: more than 65535 sections, or one of 4 GiB and more.
    """
    if len(sections) > MAX_SECTIONS:
        raise ValueError(f"{len(sections)} sections in a frame; allowed: at most {MAX_SECTIONS}")
    if any(len(s) > 0xFFFFFFFF for s in sections):
        raise ValueError("a section of 4 GiB or more; split it")
    lengths = struct.pack(f"<{len(sections)}I", *map(len, sections))
    body = b"".join((_HEAD.pack(MAGIC, FORMAT, int(kind), len(sections)), lengths, *sections))
    return body + _CRC.pack(zlib.crc32(body))


def unpack(data: bytes, kind: Kind, max_bytes: int) -> list[bytes]:
    """The sections of a frame, after everything about it was checked.

    Args:
        data: the frame; any bytes-like object.
        kind: the kind the caller expects.
        max_bytes: a longer frame is refused unread.

    Raises:
        FrameError: too long, cut short, not a frame, another format or kind, wrong lengths, wrong checksum.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise FrameError(f"frame is {type(data).__name__}, not bytes")
    view = memoryview(data).cast("B")
    size = len(view)
    if size > max_bytes:
        raise FrameError(f"frame of {size} bytes is too long; allowed: {max_bytes}")
    if size < envelope(0):
        raise FrameError(f"frame is cut short: {size} bytes, the smallest frame has {envelope(0)}")
    magic, version, found, count = _HEAD.unpack_from(view)
    if magic != MAGIC:
        raise FrameError(f"not a frame: magic is {bytes(magic)!r}, not {MAGIC!r}")
    if version != FORMAT:
        raise FrameError(f"frame has format version {version}; this reader knows {FORMAT}")
    if found != int(kind):
        name = Kind(found).name if found in Kind.__members__.values() else "unknown"
        raise FrameError(f"frame is of kind {found} ({name}); expected {int(kind)} ({Kind(kind).name})")
    start = _HEAD.size + 4 * count
    if size < start + _CRC.size:
        raise FrameError(f"frame is cut short: {size} bytes do not hold {count} section lengths")
    lengths = struct.unpack_from(f"<{count}I", view, _HEAD.size)
    declared = start + sum(lengths) + _CRC.size
    if declared != size:
        raise FrameError(f"frame has {size} bytes, its section lengths declare {declared}")
    (crc,) = _CRC.unpack_from(view, size - _CRC.size)
    if crc != zlib.crc32(view[: size - _CRC.size]):
        raise FrameError("frame checksum does not match: damaged on the way")
    sections = []
    for length in lengths:
        sections.append(bytes(view[start : start + length]))
        start += length
    return sections
