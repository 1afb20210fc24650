"""Pictures as they are sent, for the uplink of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


def as_read(processor: Any, images: Sequence[Image.Image]) -> np.ndarray:
    """Pictures as a tower reads them: resized and cropped by its processor, (B, H, W, 3) uint8.

    Encoding these gives what encoding gives of the pictures themselves, but for the rounding to uint8.
    """
    made = processor(
        images=[im.convert("RGB") for im in images], return_tensors="np", do_rescale=False, do_normalize=False
    )["pixel_values"]
    return np.ascontiguousarray(np.clip(np.rint(made), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def sized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """A picture in a size, (height, width, 3) uint8."""
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def grey(processor: Any) -> np.ndarray:
    """The colour (3,) uint8 that a processor's normalisation maps to zero: nothing to see."""
    mean = getattr(processor, "image_mean", None) or (0.5, 0.5, 0.5)
    return np.rint(255 * np.asarray(mean, np.float64)).astype(np.uint8)
