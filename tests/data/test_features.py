"""Claims about the tokens of clips: which frames are read, and how they lie."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from cdc_flower.config import ConfigError
from cdc_flower.data.features import FORMATS, ORIENTATION, Grid, features_of, open_picture, spread


def frame(level: int, side: int = 2) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def encode(pictures):
    """A token for each pixel, its red in every one of three dimensions."""
    for picture in pictures:
        pixels = np.asarray(picture, np.float32).reshape(-1, 3)
        yield pixels, Grid(len(pixels), picture.height, picture.width)


def test_frames_are_spread_evenly_with_both_ends_and_few_are_repeated():
    assert spread(8, 8) == list(range(8))
    assert spread(16, 4) == [0, 5, 10, 15]
    assert spread(3, 5) == [0, 0, 1, 2, 2]
    assert spread(9, 1) == [0]


def test_the_tokens_of_a_clip_are_those_of_its_frames_one_below_the_other(tmp_path):
    clips = {"a": tuple(map(frame, range(0, 100, 10))), "b": (frame(7),)}
    found = features_of(clips, tmp_path / "tokens.npy", encode, "pair", frames=4)
    assert found.grid(0) == found.grid(1) == Grid(16, 8, 2)
    assert found[0][:, 0].reshape(4, 4).tolist() == [[level] * 4 for level in (0, 30, 60, 90)]
    assert set(found[1].ravel().tolist()) == {7}


def test_frames_of_which_a_model_makes_other_grids_are_refused_with_the_clip(tmp_path):
    clips = {"odd": (frame(0), frame(0, side=3))}
    with pytest.raises(ConfigError, match="'odd' .*frames of one clip have 4 and 9 tokens"):
        features_of(clips, tmp_path / "tokens.npy", encode, "pair", frames=2)


def test_of_sixteen_bits_the_upper_eight_are_seen():
    levels, file = np.arange(0, 65536, 16).astype(np.uint16).reshape(64, 64), io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    found = np.asarray(open_picture(file.getvalue()))
    np.testing.assert_array_equal(found, np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, 2))


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("GIF", "BMP")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_as_it_says_of_itself(kind, orientation):
    lying, file = Image.effect_mandelbrot((12, 8), (-3, -2.5, 2, 2.5), 50).convert("RGB"), io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lying.save(file, kind, exif=exif)
    with Image.open(file) as stored:
        wanted = ImageOps.exif_transpose(stored).convert("RGB")
    found = open_picture(file.getvalue())
    assert found.size == ((12, 8) if orientation < 5 else (8, 12))
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0MM", b"Exif\0\0nothing at all", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_is_no_harm(exif):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (9, 9, 9)).save(file, "JPEG", exif=exif)
    assert open_picture(file.getvalue()).size == (6, 4)
