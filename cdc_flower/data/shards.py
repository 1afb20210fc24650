"""Writing a pack of any size: files of up to `SHARD` bytes, of row groups in which each picture, or frame of
a clip, lies once.

In memory is one row group of each split, however many pictures there are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cdc_flower.data.frames import stored
from cdc_flower.data.video import Clip

GROUP = 8 * 2**20  # bytes of pictures of a row group
ROWS = 20_000  # of a row group, at most
SHARD = 256 * 2**20  # bytes of pictures of a file


class _Split:
    """The open file of one split, and what waits for its next row group."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.files = self.bytes_in_file = 0
        self.writer: pq.ParquetWriter | None = None
        self._clear()

    def _clear(self) -> None:
        self.pictures: list[bytes | Clip] = []
        self.rows: list[pa.Table] = []
        self.waiting = self.count = 0

    def add(self, picture: bytes | Clip, rows: pa.Table) -> None:
        self.pictures.append(picture)
        self.rows.append(rows)
        self.waiting += len(picture) if isinstance(picture, bytes) else sum(map(len, picture.frames))
        self.count += len(rows)
        if self.waiting >= GROUP or self.count >= ROWS:
            self.flush()

    def flush(self) -> None:
        if not self.rows:
            return
        counts = [len(rows) for rows in self.rows]
        table = pa.concat_tables(self.rows)
        clips = [one for one in self.pictures if isinstance(one, Clip)]
        if clips:
            names = ["clip_id" if name == "image_id" else name for name in table.column_names]
            table = table.rename_columns(names)
            table = table.add_column(0, "fps", pa.array(np.repeat([clip.fps for clip in clips], counts)))
            each = [clip.frames for clip, count in zip(clips, counts, strict=True) for _ in range(count)]
            table = table.add_column(0, "frames", stored(each))
        else:
            at = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
            column = pa.DictionaryArray.from_arrays(pa.array(at), pa.array(self.pictures, pa.binary()))
            table = table.add_column(0, "image", column)
        if self.writer is None:
            self.writer = pq.ParquetWriter(
                self.folder / f"{self.name}-{self.files:05d}.parquet",
                table.schema,
                compression="zstd",
                dictionary_pagesize_limit=8 * GROUP,
            )
            self.files += 1
        self.writer.write_table(table)
        self.bytes_in_file += self.waiting
        self._clear()
        if self.bytes_in_file >= SHARD:
            self.close()

    def close(self) -> None:
        self.flush()
        if self.writer is not None:
            self.writer.close()
        self.writer, self.bytes_in_file = None, 0


class Writer:
    """Writes the numbered files of a pack into a folder; use it as a context.

    Args:
        folder: where; see `cdc_flower.data.packs.new_folder`.
    """

    def __init__(self, folder: Path) -> None:
        self._splits = {name: _Split(folder, name) for name in ("train", "test")}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        for split in self._splits.values():
            if error[0] is None:
                split.close()
            elif split.writer is not None:
                split.writer.close()

    def add(self, split: str, picture: bytes | Clip, rows: pa.Table) -> None:
        """A picture or clip, checked by whoever read it, and its questions: the other columns of a pack.

        A clip's `image_id` is written as `clip_id`. A pack has pictures or clips, not both.
        """
        self._splits[split].add(picture, rows)
