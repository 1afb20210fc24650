"""Frames of a video file, evenly spread, by PyAV (the extra `video`): what a clip of a pack is made of.

The packets of the file are listed first, without being decoded, so the number of frames and their times are
known and the header is not believed. Decoding then goes from wanted frame to wanted frame: it jumps to the
key frame before the next one where that saves work. One frame is in memory at a time.

A file is a stranger's: only formats that hold a video by themselves are opened (a playlist could name other
files), a frame has at most `MAX_PIXELS` pixels, and a video at most `MAX_FRAMES` frames.
"""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from cdc_flower.data.bitmaps import MAX_PIXELS
from cdc_flower.data.pictures import PackError, one_line

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
"""Demuxers that may open a file, as FFmpeg names them."""
ENDINGS = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv")
MAX_FRAMES = 1_000_000
"""A video with more is refused; at 30 a second it is nine hours long."""


@dataclass(frozen=True)
class Sampling:
    """What is kept of a video.

    Attributes:
        frames: at most so many, evenly spread, the first and the last among them.
        longest_side: of a frame [pixels]; larger ones are made smaller, smaller ones stay as they are.
        quality: of the JPEG of a frame, 1 to 100.
    """

    frames: int = 16
    longest_side: int = 480
    quality: int = 85


class Clip(NamedTuple):
    """What is kept of a video: encoded frames, and how many of them there are a second."""

    frames: tuple[bytes, ...]
    fps: float


def pyav() -> Any:
    """The module `av`.

    Raises:
        PackError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise PackError(
            "video files are read by PyAV, which is not installed; allowed: pip install 'cdc-flower[video]'"
        ) from None
    return av


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spread, the first and the last among them."""
    if most == 1:
        return [(count - 1) // 2]
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def read_clip(path: Path, sampling: Sampling) -> Clip:
    """The kept frames of a video as JPEG, and their rate.

    Raises:
        PackError: without the file's name: not a video, no frames, too many, too large, of several sizes, or
            one that cannot be decoded.
    """
    av = pyav()
    try:
        with _opened(av, path) as (container, stream):
            times, keys = _times(container, stream)
            seconds_each, rate = float(stream.time_base or 0), float(stream.average_rate or 0)
        wanted = [times[i] for i in spread(len(times), sampling.frames)]
        try:
            found = _frames(av, path, wanted, keys, sampling)
        except _Late:
            found = _frames(av, path, wanted, (), sampling)
    except EOFError:
        raise PackError("no frames in it") from None
    except (av.FFmpegError, ValueError, OSError) as err:
        if isinstance(err, PackError):
            raise
        said = getattr(err, "strerror", None) or one_line(err)  # without the file's name
        raise PackError(f"not a video that can be decoded: {said}") from None
    seconds = (wanted[-1] - wanted[0]) * seconds_each
    fps = (len(found) - 1) / seconds if seconds > 0 else rate
    return Clip(tuple(found), fps if math.isfinite(fps) and fps > 0 else 1.0)


class _Late(Exception):
    """A jump went past the key frame that it was meant for: the file's index is wrong, or it has none."""


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[tuple[Any, Any]]:
    closed = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    with av.open(str(path), metadata_errors="ignore", options=closed) as container:
        if not container.streams.video:
            raise PackError("no video in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise PackError("not a video that can be decoded: its format is unknown, or the file is cut off")
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream


def _times(container: Any, stream: Any) -> tuple[list[int], list[int]]:
    """When each frame is shown, and those of key frames: both sorted, in units of `stream.time_base`."""
    times: list[int] = []
    keys: list[int] = []
    for packet in container.demux(stream):
        at = packet.dts if packet.pts is None else packet.pts
        if packet.size and at is not None and not packet.is_discard:
            times.append(at)
            if packet.is_keyframe:
                keys.append(at)
        if len(times) > MAX_FRAMES:
            raise PackError(f"more than {MAX_FRAMES:,} frames; allowed: up to {MAX_FRAMES:,}")
    if not times:
        raise PackError("no frames in it")
    return sorted(times), sorted(keys)


def _frames(
    av: Any, path: Path, wanted: Sequence[int], keys: Sequence[int], sampling: Sampling
) -> list[bytes]:
    """The JPEG of the frame that is shown at each of the wanted times, which grow.

    Args:
        keys: times that may be jumped to; none = decode all.
    """
    with _opened(av, path) as (container, stream):
        decoded, frame, size, found = container.decode(stream), None, None, []
        for time in wanted:
            key = keys[max(0, bisect_right(keys, time) - 1)] if keys else None
            if key is not None and frame is not None and key > frame.pts:
                container.seek(key, stream=stream)
                decoded, frame = container.decode(stream), None
            while frame is None or frame.pts < time:
                following = next(decoded, None)
                if following is None:  # the last packets show nothing: the last frame stays
                    break
                if following.pts is None:
                    raise PackError("frames without a time")
                if frame is None and key is not None and found and following.pts > key:
                    raise _Late
                frame = following
            if frame is None:
                raise PackError("no frame of it can be decoded")
            if size not in (None, (frame.width, frame.height)):
                raise PackError(
                    f"its size changes: {size[0]}x{size[1]} pixels, then {frame.width}x{frame.height} at "
                    f"{float(time * stream.time_base):.2f} s; allowed: one size"
                )
            size = frame.width, frame.height
            found.append(_jpeg(frame, sampling))
    return found


def _jpeg(frame: Any, sampling: Sampling) -> bytes:
    picture: Image.Image = frame.to_image()
    if frame.rotation:  # how a telephone was held
        picture = picture.rotate(frame.rotation, expand=True)
    picture.thumbnail((sampling.longest_side, sampling.longest_side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=sampling.quality)
    return stream.getvalue()
