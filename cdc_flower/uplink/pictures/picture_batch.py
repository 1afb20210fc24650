"""What a device may send instead of tokens: its pictures, whole or in parts, as the controls for the tokens.

Two forms: `jpeg`, the whole picture as the tower's processor reads it, and `patches`, a mosaic of the patches
of the kept tokens. Both are lossy pictures in one column (`wire.picture`); everything else of a sample stands
in the columns that a token batch has, so that the arms differ in nothing but the picture. The cloud runs the
tower itself. It sees the picture: nothing about this is private.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdc_flower.uplink import sample_columns
from cdc_flower.uplink.pictures import mosaic, picture
from cdc_flower.uplink.sample_columns import MAX_SAMPLES, MAX_TEXT
from cdc_flower.wire import columns
from cdc_flower.wire.frame import FrameError, Kind, pack, unpack

_HEAD = struct.Struct("<IIIIHHB")  # device, round, version, samples, side, patch, form
SECTIONS = 1 + sample_columns.COUNT + 2  # the head, the columns of samples, lengths, pictures
_WHAT = "picture batch"


@dataclass(frozen=True)
class Form:
    """How pictures go up.

    Attributes:
        id: on the wire.
        codec: a key of `wire.picture.CODECS`.
        whole: the whole picture, or the patches of the kept tokens.
    """

    id: int
    codec: str
    whole: bool


FORMS = {"jpeg": Form(1, "JPEG", whole=True), "patches": Form(2, "WEBP", whole=False)}
"""Name in the settings -> form. Mosaics are WebP: fewer bytes than JPEG at less error, measured
(docs/wire-format.md)."""


@dataclass(frozen=True)
class Raster:
    """What a tower reads: a square of `side` pixels in square patches of `patch`, one token each."""

    side: int
    patch: int

    @property
    def n_tokens(self) -> int:
        """Patches of a picture."""
        return (self.side // self.patch) ** 2


@dataclass(frozen=True, eq=False)
class PictureSample:
    """One sample a device uploads with its picture; words and uncertainty as in `token_batch.Sample`.

    Attributes:
        index: its place among the samples of the device's round.
        positions: (K,) uint16, strictly rising, the tokens whose patches are sent; (0,) with a whole picture.
        picture: what `coded` gave.
        question_ids: token ids of the question.
        answer_ids: token ids of the device's own answer.
        uncertainty: why it was chosen; finite, kept to float16.
    """

    index: int
    positions: NDArray[np.uint16]
    picture: bytes
    question_ids: Sequence[int]
    answer_ids: Sequence[int]
    uncertainty: float


@dataclass(frozen=True, eq=False)
class PictureBatch:
    """What one device uploads in one round; `version` is that of the adapter that gave the answers."""

    device: int
    round: int
    version: int
    samples: tuple[PictureSample, ...]


def _size(form: Form, raster: Raster, kept: int) -> tuple[int, int]:
    """Height and width in pixels of a sample's picture."""
    if form.whole:
        return raster.side, raster.side
    rows, wide = mosaic.shape(kept)
    return rows * raster.patch, wide * raster.patch


def coded(
    pixels: NDArray[np.uint8], positions: NDArray[np.integer], form: str, raster: Raster, quality: int
) -> bytes:
    """The picture of a sample, or of the patches of its kept tokens, coded.

    Args:
        pixels: (side, side, 3) uint8, what the tower's processor made of the picture (`vlm.as_read`).
        positions: (K,) the kept tokens; not used with a whole picture.
        form: a key of `FORMS`.
        raster: of the tower.
        quality: 1..95.

    Raises:
        ValueError: a picture of another size, no token with `patches`, another quality.
    """
    if pixels.shape != (raster.side, raster.side, 3):
        raise ValueError(f"picture of {pixels.shape}; this tower reads {raster.side}x{raster.side}")
    some = pixels if FORMS[form].whole else mosaic.cut(pixels, positions, raster.patch)
    return picture.pack_picture(some, FORMS[form].codec, quality)


def encode(batch: PictureBatch, form: str, raster: Raster) -> bytes:
    """The PICTURE_BATCH frame. A batch without samples is legal.

    Args:
        batch: what to send.
        form: a key of `FORMS`.
        raster: of the tower; its side is at most 65535.

    Raises:
        ValueError: a sample that does not fit these; nothing is sent that the reader would refuse for its
            ids, positions or bytes. That `picture` is what `coded` gave is not looked at.
    """
    way = FORMS[form]
    for sample in batch.samples:
        sample_columns.check(sample, raster.n_tokens)
        if way.whole == bool(len(sample.positions)):
            raise ValueError(
                f"sample {sample.index}: {len(sample.positions)} positions; "
                f"allowed in form {form}: {'none' if way.whole else 'at least one'}"
            )
        cap = picture.longest(*_size(way, raster, len(sample.positions)))
        if len(sample.picture) > cap:
            raise ValueError(f"sample {sample.index}: picture of {len(sample.picture)} bytes; allowed: {cap}")
    head = _HEAD.pack(
        batch.device, batch.round, batch.version, len(batch.samples), raster.side, raster.patch, way.id
    )
    lengths = np.array([len(s.picture) for s in batch.samples], np.int64)
    pictures = np.frombuffer(b"".join(s.picture for s in batch.samples), np.uint8)
    return pack(
        Kind.PICTURE_BATCH,
        head,
        *sample_columns.pack_samples(batch.samples),
        columns.pack_column(lengths, 4),
        columns.pack_column(pictures, 1),
    )


def decode(
    data: bytes,
    form: str,
    raster: Raster,
    vocab: int,
    max_bytes: int,
    *,
    max_samples: int = MAX_SAMPLES,
    max_text: int = MAX_TEXT,
) -> tuple[PictureBatch, list[NDArray[np.uint8]]]:
    """The batch of a PICTURE_BATCH frame, and its pictures decoded: (side, side, 3) uint8 each with a whole
    picture, else the mosaic (H, W, 3) uint8 of that many patches.

    Memory is bounded by the arguments alone, about `max_samples * (side**2 * 12 + max_text * 100)` bytes,
    whatever the frame claims; a picture is decoded only if its header says the size that it must have.

    Args:
        data: the frame.
        form: a key of `FORMS`; a frame of another form is refused.
        raster: of this pair's tower.
        vocab: ids must lie below it.
        max_bytes: a longer frame is refused unread.
        max_samples: samples a device may see in a round; bounds their number and their index.
        max_text: ids a question, and an answer, may have.

    Raises:
        FrameError: anything about it that `encode` would not have written for these arguments, or a picture
            that is not whole.
    """
    head, *sections = unpack(data, Kind.PICTURE_BATCH, max_bytes) or [b""]
    if len(head) != _HEAD.size or len(sections) != SECTIONS - 1:
        raise FrameError(
            f"{_WHAT}: {len(sections) + 1} sections, head of {len(head)} bytes; "
            f"expected {SECTIONS} and {_HEAD.size}"
        )
    device, round_, version, count, side, patch, found = _HEAD.unpack(head)
    if (side, patch) != (raster.side, raster.patch):
        raise FrameError(
            f"{_WHAT}: made for {side} pixels in patches of {patch}, "
            f"this pair has {raster.side} in {raster.patch}"
        )
    way = FORMS[form]
    if found != way.id:
        raise FrameError(f"{_WHAT}: of form {found}; expected {way.id} ({form})")
    rows = sample_columns.unpack_samples(
        sections, count, raster.n_tokens, vocab, max_samples, max_text, _WHAT
    )
    for row in rows:
        if way.whole == bool(len(row.positions)):
            raise FrameError(f"{_WHAT}: {len(row.positions)} tokens kept in a sample of form {form}")
    sizes = [_size(way, raster, len(row.positions)) for row in rows]
    lengths = columns.unpack_column(sections[-2], count, 4, "picture lengths")
    for length, size in zip(lengths, sizes, strict=True):
        if length > picture.longest(*size):
            raise FrameError(f"{_WHAT}: a picture of {length} bytes; allowed: {picture.longest(*size)}")
    at = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).tolist()
    every = columns.unpack_column(sections[-1], at[-1], 1, "pictures").tobytes()
    samples, pixels = [], []
    for i, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        data = every[at[i] : at[i + 1]]
        pixels.append(picture.unpack_picture(data, *size, way.codec, f"{_WHAT}: picture {i}"))
        samples.append(
            PictureSample(row.index, row.positions, data, row.question_ids, row.answer_ids, row.uncertainty)
        )
    return PictureBatch(device, round_, version, tuple(samples)), pixels
