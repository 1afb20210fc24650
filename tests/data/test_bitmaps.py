"""Claims about pictures from strangers: five formats, whole, and no more pixels than a bound."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from cdc_flower.data import bitmaps
from cdc_flower.data.features import FORMATS, ORIENTATION


def _encoded(kind, size=(6, 4)):
    data = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(data, kind)
    return data.getvalue()


def _noise():
    data = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_common_formats_are_opened(kind):
    assert bitmaps.check_picture(_encoded(kind)) is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a readable picture"),
        (b"<svg/>", "allowed formats: PNG"),
        (_encoded("TIFF"), "not a readable picture"),
        (_noise()[:500], "broken picture"),
        (_encoded("JPEG", (64, 64))[:-60], "broken picture"),
    ],
)
def test_others_are_refused_in_words(data, says):
    assert says in (bitmaps.check_picture(data) or "")


def test_the_bound_is_of_pixels(monkeypatch):
    monkeypatch.setattr(bitmaps, "MAX_PIXELS", 24)
    assert bitmaps.check_picture(_encoded("PNG")) is None
    assert "7x4 pixels, allowed are 24" in (bitmaps.check_picture(_encoded("PNG", (7, 4))) or "")


def test_the_size_is_that_of_the_upright_picture():
    data, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (6, 4)).save(data, "JPEG", exif=exif)
    assert bitmaps.size_of(data.getvalue()) == (4, 6)
    assert bitmaps.size_of(_encoded("JPEG")) == (6, 4)
    assert bitmaps.check_picture(data.getvalue()) is None
