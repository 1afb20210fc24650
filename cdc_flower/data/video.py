"""Frames of a video file, evenly spread, by PyAV (the extra `video`): what a clip of a pack is made of.

The packets of the file are listed first, without being decoded, so the number of frames and their times are
known and the header is not believed. Decoding then goes from wanted frame to wanted frame: it jumps to the
key frame before the next one where that saves work. Where a format has no index of key frames or no times at
which frames are shown, or a jump goes astray, all frames are decoded and counted. One frame is in memory at a
time.

A file is a stranger's: only formats that hold a video by themselves are opened (a playlist could name other
files), a frame has at most `MAX_PIXELS` pixels, and a video at most `MAX_FRAMES` frames.
"""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from cdc_flower.border import first_line
from cdc_flower.data.bitmaps import MAX_PIXELS
from cdc_flower.data.pictures import PackError

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
"""Demuxers that may open a file, as FFmpeg names them."""
JUMPS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
"""Those whose files have an index that leads to key frames."""
REORDERED = ("h264", "hevc", "vvc")
"""Codecs whose frames FFmpeg gives the times of decoding where a format, such as AVI, has no others."""
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
            listed = _listed(container, stream)
        found = _by_time(av, path, listed, sampling) if listed.keys else None
        found = found or _by_number(av, path, listed.count, sampling)
    except EOFError:
        raise PackError("no frames in it") from None
    except IndexError:  # PyAV knows the streams that the file had when it was opened
        raise PackError("not a video that can be decoded: a stream begins in the midst of it") from None
    except (av.FFmpegError, ValueError, OSError) as err:
        if isinstance(err, PackError):
            raise
        said = getattr(err, "strerror", None) or first_line(err)  # without the file's name
        raise PackError(f"not a video that can be decoded: {said}") from None
    seconds = listed.seconds if len(found) > 1 else 0
    fps = (len(found) - 1) / seconds if seconds > 0 else listed.rate
    return Clip(tuple(found), fps if math.isfinite(fps) and fps > 0 else 1.0)


class _Listed(NamedTuple):
    """What packets say.

    Attributes:
        count: of frames, as many as there are packets.
        times: when each is shown, sorted, in units of the stream; of packets without a time there is none.
        keys: those of key frames that may be jumped to; none = frames are to be counted.
        seconds: from the first frame to the last; 0 = not known.
        rate: frames a second, as the header has it; 0 = not known.
    """

    count: int
    times: list[int]
    keys: list[int]
    seconds: float
    rate: float


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


def _listed(container: Any, stream: Any) -> _Listed:
    count, times, keys = 0, [], []
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        count += 1
        if count > MAX_FRAMES:
            raise PackError(f"more than {MAX_FRAMES:,} frames; allowed: up to {MAX_FRAMES:,}")
        if packet.pts is not None:
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    if not count:
        raise PackError("no frames in it")
    codec, shown, all_timed = stream.codec_context, sorted(times), len(times) == count
    of_decoding = codec.name in REORDERED and codec.has_b_frames and times == shown
    led = container.format.name in JUMPS and all_timed and not of_decoding
    rate = float(stream.average_rate or 0)
    if all_timed:
        seconds = (shown[-1] - shown[0]) * float(stream.time_base or 0)
    else:
        seconds = (count - 1) / rate if rate else 0.0
    return _Listed(count, shown, sorted(keys) if led else [], seconds, rate)


def _by_time(av: Any, path: Path, listed: _Listed, sampling: Sampling) -> list[bytes] | None:
    """The JPEG of the frames that are shown at the wanted times; None where times do not lead to them."""
    size, frame, found = None, None, []
    with _opened(av, path) as (container, stream):
        decoded = container.decode(stream)
        for i in spread(listed.count, sampling.frames):
            time = listed.times[i]
            key = listed.keys[max(0, bisect_right(listed.keys, time) - 1)]
            if frame is not None and key > frame.pts:
                container.seek(key, stream=stream)
                decoded, frame = container.decode(stream), None
            while frame is None or frame.pts < time:
                following = next(decoded, None)
                if following is None:  # the last packets show nothing: the last frame stays
                    break
                late = frame is None and found and following.pts is not None and following.pts > key
                if following.pts is None or late or (frame is not None and following.pts < frame.pts):
                    return None
                frame = following
            if frame is None:
                return None
            size = _size(frame, size)
            found.append(_jpeg(frame, sampling))
    return found


def _by_number(av: Any, path: Path, count: int, sampling: Sampling) -> list[bytes]:
    """The JPEG of the wanted frames, of all that are decoded.

    Args:
        count: of packets; where another number of frames comes, they are decoded once more.
    """
    for _ in range(2):
        wanted, size, number, found = set(spread(count, sampling.frames)), None, 0, []
        with _opened(av, path) as (container, stream):
            for frame in container.decode(stream):
                if number in wanted:
                    size = _size(frame, size)
                    found.append(_jpeg(frame, sampling))
                number += 1
        if not number:
            raise PackError("no frame of it can be decoded")
        if number == count:
            break
        count = number
    return found


def _size(frame: Any, size: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height of a frame: `size`, where that is known."""
    if size not in (None, (frame.width, frame.height)):
        at = "" if frame.time is None else f" at {frame.time:.2f} s"
        raise PackError(
            f"its size changes: {size[0]}x{size[1]} pixels, then {frame.width}x{frame.height}{at}; "
            "allowed: one size"
        )
    return frame.width, frame.height


def _jpeg(frame: Any, sampling: Sampling) -> bytes:
    picture: Image.Image = frame.to_image()
    if frame.rotation:  # how a telephone was held
        picture = picture.rotate(frame.rotation, expand=True)
    picture.thumbnail((sampling.longest_side, sampling.longest_side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=sampling.quality)
    return stream.getvalue()
