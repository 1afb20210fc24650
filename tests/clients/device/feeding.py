"""Pictures and rows for the tests of feeds."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from PIL import Image


def picture(shade: int = 0, kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    """A small encoded picture."""
    data = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(data, kind)
    return data.getvalue()


def row(image: str, question: str) -> bytes:
    """A row of a feed."""
    return json.dumps({"image": image, "question": question}).encode() + b"\n"


def clip_row(frames: object, question: str) -> bytes:
    """A row of a feed about a clip."""
    return json.dumps({"frames": frames, "question": question}).encode() + b"\n"


def pair(folder: Path, name: str, question: str, age: int = 0) -> None:
    """What a camera program does; `age` in nanoseconds orders pairs of one moment."""
    (folder / f"{name}.png").write_bytes(picture())
    part = folder / f"{name}.part"
    part.write_bytes(row(f"{name}.png", question))
    os.utime(part, ns=(10**18 - age, 10**18 - age))
    os.rename(part, folder / f"{name}.json")
