"""Claims about pictures in a frame: they come back nearly as they were, and nothing else is opened."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from cdc_flower.uplink.pictures import picture
from cdc_flower.uplink.pictures.picture import CODECS, longest, pack_picture, unpack_picture
from cdc_flower.wire.frame import FrameError

H, W = 24, 36


def smooth(height=H, width=W):
    """(height, width, 3) uint8: ramps, which any codec keeps."""
    rows, cols = np.linspace(20, 220, height)[:, None], np.linspace(20, 220, width)
    return np.stack([rows + 0 * cols, 0 * rows + cols, (rows + cols) / 2], -1).astype(np.uint8)


def written(pixels=None, kind="JPEG", **options):
    """What Pillow writes, which need not be what `pack_picture` writes."""
    out = io.BytesIO()
    Image.fromarray(smooth() if pixels is None else pixels).save(out, kind, **options)
    return out.getvalue()


def read(data, codec="JPEG"):
    return unpack_picture(data, H, W, codec, "it")


@pytest.mark.parametrize("codec", list(CODECS))
@pytest.mark.parametrize(("quality", "error"), [(1, 40), (30, 9), (75, 5), (95, 3)])
def test_a_picture_comes_back_within_its_quality(codec, quality, error):
    data = pack_picture(smooth(), codec, quality)
    back = read(data, codec)
    assert back.shape == (H, W, 3)
    assert back.dtype == np.uint8
    assert np.abs(back.astype(int) - smooth()).mean() < error
    assert data == pack_picture(smooth(), codec, quality)
    assert len(data) <= longest(H, W)


@pytest.mark.parametrize("codec", list(CODECS))
def test_a_higher_quality_costs_more_and_is_nearer(codec):
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    low, high = (pack_picture(noise, codec, q) for q in (20, 95))
    assert len(low) < len(high) <= longest(H, W)
    far, near = (np.abs(read(d, codec).astype(int) - noise).mean() for d in (low, high))
    assert near < far


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pixels": np.zeros((4, 4), np.uint8)}, r"\(H, W, 3\) uint8"),
        ({"pixels": np.zeros((4, 4, 4), np.uint8)}, r"\(H, W, 3\) uint8"),
        ({"pixels": np.zeros((4, 4, 3), np.float32)}, r"\(H, W, 3\) uint8"),
        ({"pixels": np.zeros((0, 4, 3), np.uint8)}, r"\(H, W, 3\) uint8"),
        ({"codec": "PNG"}, "'PNG'; allowed: JPEG, WEBP"),
        ({"quality": 0}, "quality 0; allowed: 1..95"),
        ({"quality": 96}, "quality 96; allowed: 1..95"),
    ],
)
def test_what_cannot_be_coded_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        pack_picture(**({"pixels": smooth(), "codec": "JPEG", "quality": 75} | change))


@pytest.mark.parametrize("codec", list(CODECS))
def test_any_cut_of_a_picture_is_refused(codec):
    data = pack_picture(smooth(), codec, 60)
    for length in range(len(data)):
        with pytest.raises(FrameError, match="it: "):
            read(data[:length], codec)
    with pytest.raises(FrameError, match="not a plain"):
        read(data + b"\0", codec)


@pytest.mark.parametrize("codec", list(CODECS))
def test_another_size_is_refused_before_it_is_decoded(codec, monkeypatch):
    monkeypatch.setattr(picture.Image, "open", lambda *_, **__: pytest.fail("opened"))
    for shape in ((H, W + 1), (H + 1, W), (W, H)):
        with pytest.raises(FrameError, match=f"{shape[1]}x{shape[0]} pixels, expected {W}x{H}"):
            read(pack_picture(smooth(*shape), codec, 60), codec)


def _claiming(data, codec, height, width):
    """The picture with another size in its header."""
    data = bytearray(data)
    if codec == "JPEG":
        data[(at := data.index(b"\xff\xc0") + 5) : at + 4] = struct.pack(">HH", height, width)
    else:
        data[26:30] = struct.pack("<HH", width, height)
    return bytes(data)


@pytest.mark.parametrize("codec", list(CODECS))
def test_a_bomb_is_refused_before_it_is_decoded(codec, monkeypatch):
    monkeypatch.setattr(picture.Image, "open", lambda *_, **__: pytest.fail("opened"))
    data = _claiming(pack_picture(smooth(), codec, 60), codec, 16383, 16383)
    with pytest.raises(FrameError, match="16383x16383 pixels, expected 36x24"):
        read(data, codec)


def test_too_little_behind_a_header_is_refused_or_as_libjpeg_does_filled_up():
    small = {codec: _claiming(pack_picture(smooth(8, 8), codec, 60), codec, H, W) for codec in CODECS}
    with pytest.raises(FrameError, match="broken WEBP picture"):
        read(small["WEBP"], "WEBP")
    assert read(small["JPEG"]).shape == (H, W, 3)


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (b"", "JPEG"),
        (b"", "WEBP"),
        (written(kind="PNG"), "JPEG"),
        (written(kind="PNG"), "WEBP"),
        (written(kind="GIF"), "JPEG"),
        (written(kind="WEBP"), "JPEG"),
        (written(), "WEBP"),
        (written(progressive=True), "JPEG"),
        (written(smooth()[..., 0]), "JPEG"),  # grey
        (written(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), "JPEG"),
        (written(comment=b"hello"), "JPEG"),
        (written(icc_profile=b"x" * 200), "JPEG"),
        (written(restart_marker_blocks=1), "JPEG"),
        (written(kind="MPO", save_all=True, append_images=[Image.fromarray(smooth())]), "JPEG"),
        (written(kind="WEBP", lossless=True), "WEBP"),
        (written(kind="WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), "WEBP"),
        (written(kind="WEBP", save_all=True, append_images=[Image.fromarray(255 - smooth())]), "WEBP"),
        (written(np.dstack([smooth(), smooth()[..., 0]]), "WEBP"), "WEBP"),  # with transparency
    ],
)
def test_only_the_plain_form_of_the_expected_codec_is_opened(data, codec, monkeypatch):
    monkeypatch.setattr(picture.Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(FrameError, match=f"not a plain {codec}"):
        read(data, codec)


def test_more_bytes_than_pixels_are_refused():
    with pytest.raises(FrameError, match=f"allowed: {longest(H, W)}"):
        read(bytes(longest(H, W) + 1))


@pytest.mark.parametrize("codec", list(CODECS))
def test_mutated_pictures_are_read_in_their_size_or_refused(codec):
    rng, refused = np.random.default_rng(0), 0
    whole = pack_picture(smooth(), codec, 75)
    for _ in range(2000):
        data = bytearray(whole)
        for at in rng.integers(len(data), size=rng.integers(1, 5)):
            data[at] = int(rng.integers(256))
        try:
            assert read(bytes(data), codec).shape == (H, W, 3)
        except FrameError:
            refused += 1
    assert 50 < refused < 2000


def test_whatever_the_decoder_raises_is_a_refusal(monkeypatch):
    def broken(*_, **__):
        raise MemoryError("as a decoder would")

    monkeypatch.setattr(picture.Image, "open", broken)
    with pytest.raises(FrameError, match="broken JPEG picture: as a decoder would"):
        read(pack_picture(smooth(), "JPEG", 75))
