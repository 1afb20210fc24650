"""The columns that every uplink frame begins with: which samples, which of their tokens, and the words.

Columns, not rows: all samples' values of one kind stand together. What a sample carries beside them (tokens,
a picture) belongs to the frame's own module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire import coder_models, columns, packing
from cdc_flower.wire.frame import FrameError

HALF_MAX = 65504.0
MAX_SAMPLES, MAX_TEXT = 1024, 1024  # the readers' defaults
_COLUMNS = (
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


class Asked(Protocol):
    """What `pack_samples` reads of a sample; see `token_batch.Sample`."""

    @property
    def index(self) -> int: ...
    @property
    def positions(self) -> NDArray[np.uint16]: ...
    @property
    def question_ids(self) -> Sequence[int]: ...
    @property
    def answer_ids(self) -> Sequence[int]: ...
    @property
    def uncertainty(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Row:
    """What `unpack_samples` gives of a sample; an `Asked`."""

    index: int
    positions: NDArray[np.uint16]
    question_ids: list[int]
    answer_ids: list[int]
    uncertainty: float


def check(sample: Asked, n_tokens: int) -> None:
    """Refuse what the reader would refuse.

    Raises:
        ValueError: names the sample and what is wrong.
    """
    where, positions = f"sample {sample.index}", np.asarray(sample.positions, np.int64)
    if positions.ndim != 1:
        raise ValueError(f"{where}: positions {positions.shape}")
    if len(positions) and (positions[0] < 0 or positions[-1] >= n_tokens or (np.diff(positions) <= 0).any()):
        raise ValueError(f"{where}: positions must rise strictly within 0..{n_tokens - 1}")
    for name, ids in (("question", sample.question_ids), ("answer", sample.answer_ids)):
        if len(ids) > 0xFFFF or any(not 0 <= i <= coder_models.MAX_VALUE for i in ids):
            raise ValueError(f"{where}: {name} ids must be at most 65535 integers from 0")
    if not np.isfinite(sample.uncertainty):
        raise ValueError(f"{where}: uncertainty {sample.uncertainty} is not finite")


def pack_samples(samples: Sequence[Asked]) -> list[bytes]:
    """`COUNT` sections: index, tokens kept, lengths, uncertainty, position gaps, question ids, answer ids."""
    by_name = {
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
    return [columns.pack_column(np.asarray(by_name[name], np.int64), size) for name, size in _COLUMNS]


def _half(value: float) -> float:
    return min(max(value, -HALF_MAX), HALF_MAX)


def unpack_samples(
    sections: Sequence[bytes],
    count: int,
    n_tokens: int,
    vocab: int,
    max_samples: int,
    max_text: int,
    what: str,
) -> list[Row]:
    """The samples of a frame, without what each carries.

    Args:
        sections: at least `COUNT`, those of `pack_samples` first.
        count: samples that the frame claims to have.
        n_tokens: N; positions lie below it.
        vocab: ids lie below it.
        max_samples: bounds their number and their index.
        max_text: ids a question, and an answer, may have.
        what: the frame's name in errors.

    Raises:
        FrameError: anything that `pack_samples` would not have written of samples within these limits.
    """
    if count > max_samples:
        raise FrameError(f"{what}: {count} samples; allowed: {max_samples}")

    def column(k: int, length: int) -> NDArray[np.unsignedinteger]:
        name, itemsize = _COLUMNS[k]
        return columns.unpack_column(sections[k], length, itemsize, name)

    index, kept, n_question, n_answer, uncertainty = (column(k, count) for k in range(5))
    limit(what, "index", index, max_samples - 1)
    if len(np.unique(index)) < count:
        raise FrameError(f"{what}: one sample twice")
    limit(what, "tokens kept", kept, n_tokens)
    limit(what, "question lengths", n_question, max_text)
    limit(what, "answer lengths", n_answer, max_text)
    at = [np.concatenate(([0], np.cumsum(n, dtype=np.int64))) for n in (kept, n_question, n_answer)]
    positions = _positions(column(5, int(at[0][-1])), kept, n_tokens, what)
    question, answer = column(6, int(at[1][-1])), column(7, int(at[2][-1]))
    limit(what, "question ids", question, vocab - 1)
    limit(what, "answer ids", answer, vocab - 1)
    doubt = uncertainty.astype("<u2").view("<f2").astype(np.float64)
    if not np.isfinite(doubt).all():
        raise FrameError(f"{what}: an uncertainty is not finite")
    return [
        Row(
            int(index[i]),
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
    gaps: NDArray[np.unsignedinteger], kept: NDArray[np.unsignedinteger], n_tokens: int, what: str
) -> NDArray[np.uint16]:
    """Gaps of all samples in a row to positions that start anew with each sample."""
    run = np.concatenate(([0], np.cumsum(gaps.astype(np.int64) + 1)))
    starts = np.cumsum(kept, dtype=np.int64) - kept
    positions = run[1:] - np.repeat(run[starts], kept) - 1
    if positions.max(initial=0) >= n_tokens:
        raise FrameError(f"{what}: position {positions.max()}; allowed: 0..{n_tokens - 1}")
    return positions.astype(np.uint16)
