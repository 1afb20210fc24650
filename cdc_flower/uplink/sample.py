"""A sample that a device uploads, and the columns that every uplink frame begins with.

Columns, not rows: all samples' values of one kind stand together. Pictures may have different numbers of
tokens, so every sample says the grid of its picture: a frame names each grid once, and a column says whose is
which. What a sample carries beside these columns (tokens, a picture) belongs to the frame's own module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire import coder_models, columns, packing
from cdc_flower.wire.frame import FrameError

Grid = tuple[int, int, int]
"""Vision tokens of a picture, and the rows and columns in which they lie; each at most 65535."""

Fits = Callable[[Grid], bool]
"""Whether a pair's pictures can have a grid."""

HALF_MAX = 65504.0
MAX_GRIDS = 255
MAX_BYTES = 64 * 2**20  # the cloud refuses a longer uplink frame unread
NO_POSITIONS, NO_TOKENS = np.zeros(0, np.uint16), np.zeros((0, 0), np.float32)
_COLUMNS = (
    ("grid", 1),
    ("index", 4),
    ("tokens kept", 2),
    ("question lengths", 2),
    ("answer lengths", 2),
    ("uncertainty", 2),
    ("position gaps", 2),
    ("question ids", 4),
    ("answer ids", 4),
)
COUNT = len(_COLUMNS)


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample a device uploads.

    Attributes:
        index: its place among the samples of the device's round.
        grid: of its picture; n is the number N of its tokens.
        positions: (K,) uint16, strictly rising, below N: the tokens that are sent, or their patches.
        question_ids: token ids of the question.
        answer_ids: token ids of the device's own answer.
        uncertainty: why it was chosen; finite, kept to float16.
        tokens: (K, D) float32, the kept rows of the vision tower's output; none beside a picture.
        picture: what `pictures.picture_batch.coded` gave; b"" beside tokens.
    """

    index: int
    grid: Grid
    positions: NDArray[np.uint16]
    question_ids: Sequence[int]
    answer_ids: Sequence[int]
    uncertainty: float
    tokens: NDArray[np.float32] = field(default_factory=lambda: NO_TOKENS)
    picture: bytes = b""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one device uploads in one round; `version` is that of the adapter that gave the answers."""

    device: int
    round: int
    version: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Limits:
    """The most that a frame of an honest device holds. A reader refuses more before it makes an array of it.

    Attributes:
        samples: bounds their number and their index.
        question: ids of a question.
        answer: ids of an answer.
        kept: tokens of a sample; 0 = all of its picture.
        pixels: of a picture; 0 = of any grid that fits.
    """

    samples: int = 1024
    question: int = 1024
    answer: int = 1024
    kept: int = 0
    pixels: int = 0


LOOSE = Limits()
"""Where nothing is known of the run."""


def check(sample: Sample) -> None:
    """Refuse what the reader would refuse.

    Raises:
        ValueError: names the sample and what is wrong.
    """
    where, positions = f"sample {sample.index}", np.asarray(sample.positions, np.int64)
    if len(sample.grid) != 3 or not all(0 <= v <= 0xFFFF for v in sample.grid):
        raise ValueError(f"{where}: grid {sample.grid}; allowed: three numbers up to 65535")
    if positions.ndim != 1:
        raise ValueError(f"{where}: positions {positions.shape}")
    n = sample.grid[0]
    if len(positions) and (positions[0] < 0 or positions[-1] >= n or (np.diff(positions) <= 0).any()):
        raise ValueError(f"{where}: positions must rise strictly within 0..{n - 1}")
    for name, ids in (("question", sample.question_ids), ("answer", sample.answer_ids)):
        if len(ids) > 0xFFFF or any(not 0 <= i <= coder_models.MAX_VALUE for i in ids):
            raise ValueError(f"{where}: {name} ids must be at most 65535 integers from 0")
    if not np.isfinite(sample.uncertainty):
        raise ValueError(f"{where}: uncertainty {sample.uncertainty} is not finite")


def pack_samples(samples: Sequence[Sample]) -> tuple[bytes, list[bytes]]:
    """The table of grids for the head of a frame, and `COUNT` sections: see `docs/wire-format.md`.

    Raises:
        ValueError: a sample that the reader would refuse, or more than 255 different grids.
    """
    for sample in samples:
        check(sample)
    grids = list(dict.fromkeys(tuple(s.grid) for s in samples))
    if len(grids) > MAX_GRIDS:
        raise ValueError(f"{len(grids)} different grids in a frame; allowed: {MAX_GRIDS}")
    places = {grid: i for i, grid in enumerate(grids)}
    by_name = {
        "grid": [places[tuple(s.grid)] for s in samples],
        "index": [s.index for s in samples],
        "tokens kept": [len(s.positions) for s in samples],
        "question lengths": [len(s.question_ids) for s in samples],
        "answer lengths": [len(s.answer_ids) for s in samples],
        "uncertainty": np.array([_half(s.uncertainty) for s in samples], "<f2").view("<u2"),
        "position gaps": np.concatenate(
            [np.zeros(0, np.int64), *(packing.gaps(np.asarray(s.positions, np.int64)) for s in samples)]
        ),
        "question ids": [i for s in samples for i in s.question_ids],
        "answer ids": [i for s in samples for i in s.answer_ids],
    }
    sections = [columns.pack_column(np.asarray(by_name[name], np.int64), size) for name, size in _COLUMNS]
    if len(grids) < 2:
        sections[0] = b""
    return bytes((len(grids),)) + np.array(grids, "<u2").tobytes(), sections


def _half(value: float) -> float:
    return min(max(value, -HALF_MAX), HALF_MAX)


def _grids(table: bytes, count: int, fits: Fits, what: str) -> list[Grid]:
    """The table of grids, each of which the pair can have."""
    if not table or len(table) != 1 + 6 * table[0]:
        raise FrameError(f"{what}: table of grids of {len(table)} bytes")
    rows = np.frombuffer(table, "<u2", offset=1).reshape(-1, 3).tolist()
    grids: list[Grid] = [(n, height, width) for n, height, width in rows]
    if len(set(grids)) < len(grids) or bool(grids) != bool(count):
        raise FrameError(f"{what}: {len(grids)} grids for {count} samples; allowed: each once, none without")
    for n, height, width in grids:
        if not fits((n, height, width)):
            raise FrameError(
                f"{what}: a picture of {n} tokens in {height} x {width}, which this pair has not"
            )
    return grids


def unpack_samples(
    table: bytes, sections: Sequence[bytes], count: int, fits: Fits, vocab: int, limits: Limits, what: str
) -> list[Sample]:
    """The samples of a frame, without what each carries.

    Args:
        table: the table of grids.
        sections: at least `COUNT`, those of `pack_samples` first.
        count: samples that the frame claims to have.
        fits: which grids this pair's pictures can have; positions lie below their n.
        vocab: ids lie below it.
        limits: of the run.
        what: the frame's name in errors.

    Raises:
        FrameError: anything that `pack_samples` would not have written of samples within these limits.
    """
    if count > limits.samples:
        raise FrameError(f"{what}: {count} samples; allowed: {limits.samples}")
    grids = _grids(table, count, fits, what)

    def column(k: int, length: int) -> NDArray[np.unsignedinteger]:
        name, itemsize = _COLUMNS[k]
        return columns.unpack_column(sections[k], length, itemsize, name)

    if len(grids) < 2:
        if sections[0]:
            raise FrameError(f"{what}: a column of grids where there is one")
        which = np.zeros(count, np.uint8)
    else:
        which = column(0, count)
        if set(which.tolist()) != set(range(len(grids))):
            raise FrameError(f"{what}: a grid that no sample has, or a sample whose grid is not there")
    most = np.array([grids[i][0] for i in which.tolist()], np.int64)
    index, kept, n_question, n_answer, uncertainty = (column(k, count) for k in range(1, 6))
    limit(what, "index", index, limits.samples - 1)
    if len(np.unique(index)) < count:
        raise FrameError(f"{what}: one sample twice")
    if (kept > most).any():
        raise FrameError(f"{what}: {kept[kept > most][0]} tokens kept of {most[kept > most][0]}")
    if limits.kept:
        limit(what, "tokens kept", kept, limits.kept)
    limit(what, "question lengths", n_question, limits.question)
    limit(what, "answer lengths", n_answer, limits.answer)
    at = [np.concatenate(([0], np.cumsum(n, dtype=np.int64))) for n in (kept, n_question, n_answer)]
    positions = _positions(column(6, int(at[0][-1])), kept, most, what)
    question, answer = column(7, int(at[1][-1])), column(8, int(at[2][-1]))
    limit(what, "question ids", question, vocab - 1)
    limit(what, "answer ids", answer, vocab - 1)
    doubt = uncertainty.astype("<u2").view("<f2").astype(np.float64)
    if not np.isfinite(doubt).all():
        raise FrameError(f"{what}: an uncertainty is not finite")
    return [
        Sample(
            int(index[i]),
            grids[which[i]],
            positions[at[0][i] : at[0][i + 1]],
            question[at[1][i] : at[1][i + 1]].tolist(),
            answer[at[2][i] : at[2][i + 1]].tolist(),
            float(doubt[i]),
        )
        for i in range(count)
    ]


def limit(what: str, name: str, values: NDArray[np.unsignedinteger], highest: int) -> None:
    """Refuse a column with a value above `highest`.

    Raises:
        FrameError: names the frame, the column and the value.
    """
    if len(values) and values.max() > highest:
        raise FrameError(f"{what}: {name} up to {values.max()}; allowed: 0..{highest}")


def _positions(
    gaps: NDArray[np.unsignedinteger], kept: NDArray[np.unsignedinteger], most: NDArray[np.int64], what: str
) -> NDArray[np.uint16]:
    """Gaps of all samples in a row to positions that start anew with each sample and lie below its N."""
    run = np.concatenate(([0], np.cumsum(gaps.astype(np.int64) + 1)))
    starts = np.cumsum(kept, dtype=np.int64) - kept
    positions = run[1:] - np.repeat(run[starts], kept) - 1
    beyond = positions >= np.repeat(most, kept)
    if beyond.any():
        raise FrameError(f"{what}: position {positions[beyond][0]} beyond its picture's tokens")
    return positions.astype(np.uint16)
