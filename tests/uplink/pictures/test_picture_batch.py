"""Claims about pictures that go up: words, places and pixels come back, and no frame is trusted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.uplink.pictures import mosaic, picture, picture_batch
from cdc_flower.uplink.pictures.picture_batch import FORMS, coded, decode, encode
from cdc_flower.uplink.sample import Batch, Limits, Sample
from cdc_flower.wire import columns
from cdc_flower.wire.frame import FrameError, Kind, pack, unpack

PATCH, GRID, VOCAB = 8, (16, 4, 4), 50
IDS = st.lists(st.integers(0, VOCAB - 1), max_size=8)
NONE = np.zeros(0, np.uint16)


def fits(grid):
    return grid == GRID


def pixels(i=0):
    """(32, 32, 3) uint8: ramps, another one for each i."""
    y, x = np.mgrid[:32, :32]
    return np.stack([40 + 5 * y, 40 + 5 * x, 40 + 4 * ((7 * i + x + y) % 32)], -1).astype(np.uint8)


@st.composite
def batches(draw, form):
    samples = []
    for i in draw(st.lists(st.integers(0, 30), unique=True, max_size=4)):
        kept = sorted(draw(st.sets(st.integers(0, 15), min_size=1)))
        where = NONE if FORMS[form].whole else np.array(kept, np.uint16)
        data = coded(pixels(i), where, form, PATCH, 90)
        samples.append(Sample(i, GRID, where, draw(IDS), draw(IDS), draw(st.floats(0, 100)), picture=data))
    number = st.integers(0, 2**32 - 1)
    return Batch(draw(number), draw(number), draw(number), tuple(samples))


@given(st.sampled_from(list(FORMS)).flatmap(lambda form: st.tuples(st.just(form), batches(form))))
def test_a_batch_comes_back_with_its_pictures(drawn):
    form, batch = drawn
    data = encode(batch, form, PATCH)
    back, seen = decode(data, form, PATCH, fits, VOCAB, len(data))
    assert data == encode(batch, form, PATCH)
    assert (back.device, back.round, back.version) == (batch.device, batch.round, batch.version)
    for a, b, got in zip(batch.samples, back.samples, seen, strict=True):
        assert (a.index, a.positions.tolist(), a.picture) == (b.index, b.positions.tolist(), b.picture)
        assert (a.question_ids, a.answer_ids) == (b.question_ids, b.answer_ids)
        assert b.uncertainty == float(np.float16(a.uncertainty))
        sent = pixels(a.index) if form == "jpeg" else mosaic.cut(pixels(a.index), a.positions, PATCH)
        assert got.shape == sent.shape
        assert np.abs(got.astype(int) - sent).mean() < 10


def sample(form, i=0, quality=60):
    where = NONE if FORMS[form].whole else np.array([1, 5, 9], np.uint16)
    data = coded(pixels(i), where, form, PATCH, quality)
    return Sample(i, GRID, where, [1, 2], [3], 0.5, picture=data)


def frame(form="jpeg", samples=None):
    return encode(Batch(0, 1, 0, (sample(form),) if samples is None else tuple(samples)), form, PATCH)


def read(data, form="jpeg", **limits):
    return decode(data, form, **({"patch": PATCH, "fits": fits, "vocab": VOCAB, "max_bytes": 10**5} | limits))


@pytest.mark.parametrize("form", list(FORMS))
def test_an_empty_batch_is_legal_and_small(form):
    data = frame(form, ())
    assert len(data) < 110
    batch, seen = read(data, form)
    assert (batch.samples, seen) == ((), [])


def test_the_tables_of_many_jpegs_are_sent_about_once():
    one, many = (len(frame("jpeg", [sample("jpeg", i) for i in range(n)])) for n in (1, 11))
    assert (many - one) / 10 < 0.5 * one


def test_a_picture_that_is_not_whole_patches_is_not_coded():
    with pytest.raises(ValueError, match="this tower reads patches of 8"):
        coded(pixels()[:15], NONE, "jpeg", PATCH, 75)
    with pytest.raises(ValueError, match="no patch"):
        coded(pixels(), NONE, "patches", PATCH, 75)


@pytest.mark.parametrize(
    ("form", "change", "says"),
    [
        ("jpeg", {"positions": np.array([1])}, "1 positions; allowed: none in form jpeg"),
        ("patches", {"positions": NONE}, "0 positions; allowed: at least one in form patches"),
        ("patches", {"positions": np.array([1, 16])}, "rise strictly within 0..15"),
        ("jpeg", {"picture": bytes(picture.longest(32, 32) + 1)}, "picture of 4097 bytes; allowed: 4096"),
        ("patches", {"picture": bytes(picture.longest(8, 24) + 1)}, "picture of 1601 bytes; allowed: 1600"),
        ("patches", {"grid": (17, 4, 4)}, "17 tokens in 4 x 4; allowed: one for each patch"),
        ("jpeg", {"question_ids": [-1]}, "question ids"),
        ("jpeg", {"uncertainty": float("nan")}, "uncertainty nan"),
    ],
)
def test_what_the_reader_would_refuse_is_not_sent(form, change, says):
    with pytest.raises(ValueError, match=says):
        frame(form, [dataclasses.replace(sample(form), **change)])


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"patch": 16}, "made of patches of 8 pixels, this pair has 16"),
        ({"fits": lambda grid: False}, "16 tokens in 4 x 4, which this pair has not"),
        ({"form": "patches"}, r"of form 1; expected 2 \(patches\)"),
        ({"vocab": 2}, "question ids up to 2; allowed: 0..1"),
        ({"max_bytes": 20}, "too long"),
        ({"limits": Limits(samples=0)}, "1 samples; allowed: 0"),
        ({"limits": Limits(question=1)}, "question lengths up to 2; allowed: 0..1"),
    ],
)
def test_the_readers_limits_hold(limits, says):
    with pytest.raises(FrameError, match=says):
        read(frame(), **limits)


def _with(form="jpeg", **sections):
    """A frame with some sections replaced; negative places are written `last` and `before`."""
    parts = unpack(frame(form), Kind.PICTURE_BATCH, 10**5)
    for name, data in sections.items():
        parts[{"head": 0, "kept": 3, "gaps": 7, "lengths": -2, "pictures": -1}[name]] = data
    return pack(Kind.PICTURE_BATCH, *parts)


def _column(values, itemsize):
    return columns.pack_column(np.array(values, np.int64), itemsize)


def _raw(data):
    return bytes((columns.RAW,)) + data


OTHER = picture.pack_picture(pixels()[:16], "JPEG", 60)  # of another size
WEBP = picture.pack_picture(pixels(), "WEBP", 60)


@pytest.mark.parametrize(
    ("form", "sections", "says"),
    [
        ("jpeg", {"head": b"short"}, "head of 5 bytes; expected 12 and at least 19"),
        ("jpeg", {"kept": _column([1], 2), "gaps": _column([1], 2)}, "1 positions; allowed: none"),
        ("patches", {"kept": _column([0], 2), "gaps": _column([], 2)}, "0 positions; allowed: at least one"),
        ("patches", {"kept": _column([2], 2), "gaps": _column([1, 1], 2)}, "24x8 pixels, expected 16x8"),
        ("jpeg", {"lengths": _column([4097], 4)}, "a picture of 4097 bytes; allowed: 4096"),
        ("jpeg", {"lengths": _column([10], 4)}, "pictures: "),
        ("jpeg", {"lengths": _column([0], 4), "pictures": _column([], 1)}, "picture 0: not a plain JPEG"),
        (
            "jpeg",
            {"lengths": _column([len(OTHER)], 4), "pictures": _raw(OTHER)},
            "32x16 pixels, expected 32x32",
        ),
        ("jpeg", {"lengths": _column([len(WEBP)], 4), "pictures": _raw(WEBP)}, "not a plain JPEG"),
    ],
)
def test_a_well_formed_frame_with_a_bad_section_is_refused(form, sections, says):
    with pytest.raises(FrameError, match=says):
        read(_with(form, **sections), form)


@pytest.mark.parametrize("form", list(FORMS))
def test_any_cut_of_a_frame_is_refused(form):
    data = frame(form)
    for length in range(0, len(data), 7):
        with pytest.raises(FrameError):
            read(data[:length], form)


def test_other_kinds_of_frames_are_refused():
    with pytest.raises(FrameError, match="1 sections, head of 0 bytes"):
        read(pack(Kind.PICTURE_BATCH))
    with pytest.raises(FrameError, match=r"expected 3 \(PICTURE_BATCH\)"):
        read(pack(Kind.TOKEN_BATCH))


def test_a_sample_twice_is_refused():
    with pytest.raises(FrameError, match="one sample twice"):
        read(frame("jpeg", [sample("jpeg")] * 2))


def test_every_form_has_its_own_number_and_a_known_codec():
    assert len({f.id for f in FORMS.values()}) == len(FORMS)
    assert {f.codec for f in FORMS.values()} <= set(picture.CODECS)
    assert picture_batch.SECTIONS == 12
