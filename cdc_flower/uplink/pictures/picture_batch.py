"""What a device may send instead of tokens: its pictures, whole or in parts.

Two uses. Where teacher and student have different vision towers, tokens of one mean nothing to the other, and
a picture is what both can read: this is the way to go for such pairs. Where the towers are equal it is the
control that tokens have to be measured against, at equal bytes. The cloud sees the picture: nothing about
this is private.

Two forms: `jpeg`, the whole picture, and `patches`, a mosaic of the patches of the kept tokens. Both are
lossy pictures in one column (`picture`); everything else of a sample stands in the columns that a token batch
has, so that the arms differ in nothing but the picture. The cloud runs the tower itself. A whole picture has
so many pixels for each row and column of its grid; in `patches` one token is one patch, and towers that merge
patches are not served.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cdc_flower.uplink.pictures import mosaic, picture
from cdc_flower.uplink.sample import COUNT, LOOSE, Batch, Fits, Limits, Sample, pack_samples, unpack_samples
from cdc_flower.wire import columns
from cdc_flower.wire.frame import FrameError, Kind, pack, unpack

_HEAD = struct.Struct("<IIIIHB")  # device, round, version, samples, patch, form; then the table of grids
SECTIONS = 1 + COUNT + 2  # the head, the columns of samples, lengths, pictures
_WHAT = "picture batch"


@dataclass(frozen=True)
class Form:
    """How pictures go up.

    Attributes:
        id: on the wire.
        codec: a key of `picture.CODECS`.
        whole: the whole picture, or the patches of the kept tokens.
    """

    id: int
    codec: str
    whole: bool


FORMS = {"jpeg": Form(1, "JPEG", whole=True), "patches": Form(2, "WEBP", whole=False)}
"""Name in the settings -> form. Mosaics are WebP: fewer bytes than JPEG at less error, measured
(docs/wire-format.md)."""


def _size(form: Form, sample: Sample, patch: int) -> tuple[int, int]:
    """Height and width in pixels of a sample's picture."""
    rows, cols = sample.grid[1:] if form.whole else mosaic.shape(len(sample.positions))
    return rows * patch, cols * patch


def _refusal(form: Form, sample: Sample) -> str:
    """Why a sample cannot go up in this form; "" where it can."""
    n, rows, cols = sample.grid
    if not n or not (form.whole or n == rows * cols):
        return f"{n} tokens in {rows} x {cols}; allowed: one for each patch"
    if form.whole == bool(len(sample.positions)):
        return f"{len(sample.positions)} positions; allowed: {'none' if form.whole else 'at least one'}"
    return ""


def coded(
    pixels: NDArray[np.uint8], positions: NDArray[np.integer], form: str, patch: int, quality: int
) -> bytes:
    """The picture of a sample, or of the patches of its kept tokens, coded.

    Args:
        pixels: (rows * patch, cols * patch, 3) uint8, what the tower's processor made of the picture.
        positions: (K,) the kept tokens; not used with a whole picture.
        form: a key of `FORMS`.
        patch: pixels of a patch's side.
        quality: 1..95.

    Raises:
        ValueError: a picture that is not whole patches, no token with `patches`, another quality.
    """
    if not pixels.size or pixels.shape[0] % patch or pixels.shape[1] % patch:
        raise ValueError(f"picture of {pixels.shape}; this tower reads patches of {patch}")
    some = pixels if FORMS[form].whole else mosaic.cut(pixels, positions, patch)
    return picture.pack_picture(some, FORMS[form].codec, quality)


def encode(batch: Batch, form: str, patch: int) -> bytes:
    """The PICTURE_BATCH frame. A batch without samples is legal.

    Args:
        batch: what to send; of each sample the picture, not the tokens.
        form: a key of `FORMS`.
        patch: pixels of a patch's side, at most 65535.

    Raises:
        ValueError: a sample that does not fit these; nothing is sent that the reader would refuse for its
            ids, positions or bytes. That `picture` is what `coded` gave is not looked at.
    """
    way = FORMS[form]
    for sample in batch.samples:
        if why := _refusal(way, sample):
            raise ValueError(f"sample {sample.index}: {why} in form {form}")
        cap = picture.longest(*_size(way, sample, patch))
        if len(sample.picture) > cap:
            raise ValueError(f"sample {sample.index}: picture of {len(sample.picture)} bytes; allowed: {cap}")
    table, packed = pack_samples(batch.samples)
    head = _HEAD.pack(batch.device, batch.round, batch.version, len(batch.samples), patch, way.id)
    lengths = np.array([len(s.picture) for s in batch.samples], np.int64)
    pictures = np.frombuffer(b"".join(s.picture for s in batch.samples), np.uint8)
    coded_columns = columns.pack_column(lengths, 4), columns.pack_column(pictures, 1)
    return pack(Kind.PICTURE_BATCH, head + table, *packed, *coded_columns)


def decode(
    data: bytes, form: str, patch: int, fits: Fits, vocab: int, max_bytes: int, *, limits: Limits = LOOSE
) -> tuple[Batch, list[NDArray[np.uint8]]]:
    """The batch of a PICTURE_BATCH frame, and its pictures decoded: (rows * patch, cols * patch, 3) uint8
    each with a whole picture, else the mosaic (H, W, 3) uint8 of that many patches.

    Memory is bounded by the arguments alone, about
    `samples * (kept * patch**2 * 12 + (question + answer) * 50)` bytes of the limits (with whole pictures the
    rows times columns of the largest grid instead of `kept`), whatever the frame claims; a picture is decoded
    only if its header says the size that it must have.

    Args:
        data: the frame.
        form: a key of `FORMS`; a frame of another form is refused.
        patch: pixels of a patch's side, of this pair's tower.
        fits: which grids a picture of this pair can have.
        vocab: ids must lie below it.
        max_bytes: a longer frame is refused unread.
        limits: of the run.

    Raises:
        FrameError: anything about it that `encode` would not have written for these arguments, or a picture
            that is not whole.
    """
    head, *sections = unpack(data, Kind.PICTURE_BATCH, max_bytes) or [b""]
    if len(head) < _HEAD.size or len(sections) != SECTIONS - 1:
        raise FrameError(
            f"{_WHAT}: {len(sections) + 1} sections, head of {len(head)} bytes; "
            f"expected {SECTIONS} and at least {_HEAD.size}"
        )
    device, round_, version, count, found_patch, found = _HEAD.unpack_from(head)
    if found_patch != patch:
        raise FrameError(f"{_WHAT}: made of patches of {found_patch} pixels, this pair has {patch}")
    way = FORMS[form]
    if found != way.id:
        raise FrameError(f"{_WHAT}: of form {found}; expected {way.id} ({form})")
    table = head[_HEAD.size :]
    rows = unpack_samples(table, sections, count, fits, vocab, limits, _WHAT)
    for row in rows:
        if why := _refusal(way, row):
            raise FrameError(f"{_WHAT}: sample {row.index}: {why} in form {form}")
    sizes = [_size(way, row, patch) for row in rows]
    most = max((height * width for height, width in sizes), default=0)
    if limits.pixels and most > limits.pixels:
        raise FrameError(f"{_WHAT}: a picture of {most} pixels; allowed: {limits.pixels}")
    lengths = columns.unpack_column(sections[-2], count, 4, "picture lengths")
    for length, size in zip(lengths, sizes, strict=True):
        if length > picture.longest(*size):
            raise FrameError(f"{_WHAT}: a picture of {length} bytes; allowed: {picture.longest(*size)}")
    at = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).tolist()
    every = columns.unpack_column(sections[-1], at[-1], 1, "pictures").tobytes()
    samples = tuple(replace(row, picture=every[at[i] : at[i + 1]]) for i, row in enumerate(rows))
    pixels = [
        picture.unpack_picture(sample.picture, *size, way.codec, f"{_WHAT}: picture {i}")
        for i, (sample, size) in enumerate(zip(samples, sizes, strict=True))
    ]
    return Batch(device, round_, version, samples), pixels
