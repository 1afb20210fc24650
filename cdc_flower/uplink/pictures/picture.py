"""Pictures in a frame: lossy, of a size that the reader knows, and opened only if `pack_picture` writes such.

Image decoders are large C libraries and pictures are the oldest way to attack a reader, so little is left to
them: the header is read here first, and only a plain RGB picture of exactly the expected size, in the one
codec expected, without metadata, further scans or animation reaches Pillow. What Pillow then raises, whatever
it is, comes out as FrameError. Damage within the coded pixels can give another picture, not an error.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cdc_flower.wire.frame import FrameError

QUALITY = range(1, 96)
_SPARE = 1024  # bytes a coded picture may have beyond its pixels: the tables of a JPEG
_START, _END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG
_APP0, _TABLES, _FRAME, _CODES, _SCAN = 0xE0, 0xDB, 0xC0, 0xC4, 0xDA  # its segments, baseline
_SEGMENT = struct.Struct(">BBH")  # 0xff, marker, length from this field on
_SIZE = struct.Struct(">BHHB")  # in _FRAME: bits, height, width, components
_RIFF = struct.Struct("<4sI4s4sI")
_VP8 = struct.Struct("<3s3sHH")  # frame tag, start code, width, height: 14 bits and 2 of scaling


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a baseline RGB JPEG of one scan without metadata; None for anything else."""
    at, size = len(_START), None
    if not (data.startswith(_START) and data.endswith(_END)):
        return None
    while at + _SEGMENT.size + _SIZE.size <= len(data):
        mark, kind, length = _SEGMENT.unpack_from(data, at)
        if mark != 0xFF or kind not in (_APP0, _TABLES, _FRAME, _CODES, _SCAN) or length < 2:
            return None
        if kind == _FRAME:
            bits, height, width, components = _SIZE.unpack_from(data, at + _SEGMENT.size)
            if size is not None or (bits, components) != (8, 3):
                return None
            size = height, width
        at += 2 + length
        if kind == _SCAN:  # to the end, and no other marker in it
            scan = data[at : -len(_END)]
            return size if scan.count(b"\xff") == scan.count(b"\xff\0") else None
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a lossy WebP of the simple form, one key frame; None for anything else."""
    if len(data) < _RIFF.size + _VP8.size:
        return None
    riff, length, webp, chunk, inner = _RIFF.unpack_from(data)
    tag, start, width, height = _VP8.unpack_from(data, _RIFF.size)
    known = (riff, webp, chunk, start) == (b"RIFF", b"WEBP", b"VP8 ", b"\x9d\x01\x2a")
    whole = length + 8 == len(data) == _RIFF.size + inner + inner % 2
    return (height, width) if known and whole and not tag[0] & 1 else None


@dataclass(frozen=True)
class Codec:
    """A picture codec: how Pillow writes it, and what its header says without decoding."""

    options: dict[str, Any]
    size: Callable[[bytes], tuple[int, int] | None]


CODECS = {"JPEG": Codec({}, _jpeg_size), "WEBP": Codec({"method": 6}, _webp_size)}
"""Pillow's name of a format -> its codec. JPEG has its standard tables, the same in all pictures of a
quality: a column of many holds them once (by zstd), which is smaller than tables made for each."""


def longest(height: int, width: int) -> int:
    """Bytes that a coded picture may have: no more than its pixels, and some for tables."""
    return 3 * height * width + _SPARE


def pack_picture(pixels: NDArray[np.uint8], codec: str, quality: int) -> bytes:
    """Code pixels (H, W, 3) uint8.

    Args:
        pixels: RGB.
        codec: a key of `CODECS`.
        quality: 1..95, of that codec's own scale.

    Raises:
        ValueError: other pixels, an unknown codec, another quality, a result longer than the reader takes.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"pixels must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    if codec not in CODECS:
        raise ValueError(f"picture codec {codec!r}; allowed: {', '.join(CODECS)}")
    if quality not in QUALITY:
        raise ValueError(f"picture quality {quality}; allowed: {QUALITY[0]}..{QUALITY[-1]}")
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, codec, quality=quality, **CODECS[codec].options)
    data, cap = out.getvalue(), longest(*pixels.shape[:2])
    if len(data) > cap:
        raise ValueError(f"a picture of {len(data)} bytes, more than its pixels; allowed: {cap}")
    return data


def unpack_picture(data: bytes, height: int, width: int, codec: str, what: str) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) uint8 of a coded picture; nothing is decoded before the header was checked.

    Args:
        data: what `pack_picture` gave.
        height: the picture must have it.
        width: the picture must have it.
        codec: a key of `CODECS`; another one is refused.
        what: the picture's name in errors.

    Raises:
        FrameError: too many bytes, another codec or size, metadata, cut short, damaged.
    """
    if len(data) > longest(height, width):
        raise FrameError(f"{what}: {len(data)} bytes; allowed: {longest(height, width)}")
    size = CODECS[codec].size(data)
    if size is None:
        raise FrameError(f"{what}: not a plain {codec} picture")
    if size != (height, width):
        raise FrameError(f"{what}: {size[1]}x{size[0]} pixels, expected {width}x{height}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[codec]) as picture:
                found = picture.format, picture.mode, picture.size, getattr(picture, "n_frames", 1)
                if found != (codec, "RGB", (width, height), 1):
                    raise FrameError(f"{what}: {found}, expected one RGB {codec} of {width}x{height}")
                return np.array(picture, np.uint8)
    except FrameError:
        raise
    except Exception as err:  # a foreign decoder on a stranger's bytes: whatever it raises, it did not read
        raise FrameError(f"{what}: broken {codec} picture: {err}") from None
