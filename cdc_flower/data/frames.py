"""Clips where they lie: lists of encoded frames in the parquet files of a pack, as `pictures` has pictures.

Each frame is stored once in a row group, however many rows and clips have it, and is in memory once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cdc_flower.data.bitmaps import size_of
from cdc_flower.data.pictures import Pictures, digest_of

MOST_FRAMES = 4096
"""A clip with more is refused before a frame is decoded."""


class Clips(Pictures):
    """clip_id -> the tuple of its encoded frames; see `Pictures`."""

    column, key, noun = "frames", "clip_id", "frames"

    def _whole(self, column: pa.ChunkedArray) -> Any:
        return column

    def _data(self, found: Any) -> tuple[bytes, ...]:
        return tuple(data or b"" for data in found.as_py() or ())

    def _wrong(self, found: Any) -> str | None:
        count = len(found) if found.is_valid else 0
        if not 1 <= count <= MOST_FRAMES:
            return f"{count or 'no'} frames; allowed: 1 to {MOST_FRAMES}"
        return check_frames(self._data(found))

    def _digests(self, group: Any) -> Iterator[bytes | None]:
        for chunk in group.chunks:
            values = chunk.values
            values = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
            digests = [b"" if data is None else digest_of(data) for data in values.dictionary.to_pylist()]
            at = values.indices.to_pylist()
            ends = chunk.offsets.to_pylist()
            for row, valid in enumerate(chunk.is_valid().to_pylist()):
                of_row = [b"" if i is None else digests[i] for i in at[ends[row] : ends[row + 1]]]
                yield hashlib.blake2b(b"".join(of_row), digest_size=16).digest() if valid else None


def check_frames(frames: Sequence[bytes]) -> str | None:
    """Decode the frames of a clip completely.

    Returns:
        None when each is a readable picture and all are of one size, else what is wrong.
    """
    first = (0, 0)
    for number, data in enumerate(frames):
        size = size_of(data)
        if isinstance(size, str):
            return f"frame {number}: {size}"
        first = size if number == 0 else first
        if size != first:
            return f"frame {number} has {size[0]}x{size[1]} pixels, the first {first[0]}x{first[1]}"
    return None


def stored(clips: Iterable[Sequence[bytes]]) -> pa.ListArray:
    """A column of lists of frames in which each distinct frame is there once.

    Raises:
        TypeError: what is no list of bytes.
    """
    places: dict[bytes, int] = {}
    at: list[int] = []
    ends = [0]
    for frames in clips:
        at += [places.setdefault(memoryview(frame).tobytes(), len(places)) for frame in frames]
        ends.append(len(at))
    every = pa.DictionaryArray.from_arrays(
        pa.array(np.array(at, np.int32)), pa.array(list(places), pa.binary())
    )
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), every)
