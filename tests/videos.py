"""Miniature videos, made by PyAV: every frame is one grey, so that a test sees which frame it has."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

STEP = 12
"""Grey levels between one frame and the next."""


def grey(frame: int) -> int:
    return 20 + frame * STEP % 216


def video(
    path: Path,
    frames: int = 5,
    sizes: Sequence[tuple[int, int]] = ((32, 32),),
    codec: str = "mpeg4",
    key_every: int = 4,
    rotation: int = 0,
    b_frames: int = 0,
) -> Path:
    """A video of 10 frames a second; sizes (width, height) follow one another.

    Args:
        key_every: frames from key frame to key frame; none else is one.
        b_frames: between two others, stored behind the second one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    each = -(-frames // len(sizes))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = sizes[0]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = key_every
        stream.codec_context.max_b_frames = b_frames
        if not codec.startswith("libvpx"):  # which has no such scale
            stream.codec_context.qmax = 2
        stream.options = {"sc_threshold": "1000000000", "x264-params": "b-adapt=0:scenecut=0"}
        if rotation:
            stream.set_display_rotation(rotation)
        for part, (width, height) in enumerate(sizes):
            coder = stream if part == 0 else av.CodecContext.create(codec, "w")
            if part:
                coder.width, coder.height, coder.pix_fmt = width, height, stream.pix_fmt
                coder.time_base = Fraction(1, 10)
            for i in range(part * each, min(frames, part * each + each)):
                plain = np.full((height, width, 3), grey(i), np.uint8)
                frame = av.VideoFrame.from_ndarray(plain, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                for packet in coder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
            for packet in coder.encode(None):
                packet.stream = stream
                container.mux(packet)
    return path


def without_frames(path: Path) -> Path:
    """A file with the header of a video, and nothing in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    return path


def long(path: Path, frames: int) -> Path:
    """A video of very many frames, quickly made: the packet of one frame, again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuvj420p"
        first = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 90, np.uint8), format="rgb24")
        (packet,) = [*stream.encode(first), *stream.encode(None)]
        data = bytes(packet)
        for i in range(frames):
            one = av.Packet(data)
            one.stream, one.pts, one.dts, one.is_keyframe = stream, i, i, True
            one.time_base = Fraction(1, 10)
            container.mux(one)
    return path


def sound(path: Path) -> Path:
    """A file with sound alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        for packet in [*stream.encode(silence), *stream.encode(None)]:
            container.mux(packet)
    return path
