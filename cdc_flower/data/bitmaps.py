"""Encoded pictures from strangers: what is opened of them.

Only common bitmap formats are, and only up to `MAX_PIXELS`, so that a picture cannot exhaust the memory.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image, UnidentifiedImageError

from cdc_flower.data.features import FORMATS, TURNS, turned

MAX_PIXELS = 16 * 2**20
"""A picture with more pixels is refused before it is decoded."""
MAX_BYTES = 64 * 2**20
"""A file with more bytes is not read."""


SIDEWAYS = [turn for orientation, turn in TURNS.items() if orientation > 4]


def check_picture(data: bytes) -> str | None:
    """Decode one encoded picture completely.

    Returns:
        None when it is a readable picture of at most `MAX_PIXELS` pixels, else what is wrong.
    """
    found = size_of(data)
    return found if isinstance(found, str) else None


def size_of(data: bytes) -> tuple[int, int] | str:
    """Decode one encoded picture completely.

    Returns:
        width and height of a readable picture as it is opened, upright; else what is wrong.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning: the bound below is the stricter one
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    return f"{width}x{height} pixels, allowed are {MAX_PIXELS} in all"
                picture.load()
                return (height, width) if turned(picture) in SIDEWAYS else (width, height)
    except UnidentifiedImageError:
        return f"not a readable picture ({len(data)} bytes); allowed formats: {', '.join(FORMATS)}"
    except Image.DecompressionBombError:
        return f"too many pixels, allowed are {MAX_PIXELS} in all"
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as err:  # what Pillow's decoders raise
        return f"broken picture ({len(data)} bytes): {err}"
