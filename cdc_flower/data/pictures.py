"""Encoded pictures where they lie: in the parquet files of a pack, read when they are asked for.

Which are opened is in `bitmaps`. Nothing here holds more pictures than two row groups have, however many the
pack has.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cdc_flower.border import first_line
from cdc_flower.config import ConfigError
from cdc_flower.data.bitmaps import check_picture

Picture = Any
"""An encoded picture (bytes), or the encoded frames of a clip (a tuple of them)."""
GROUPS = 2  # row groups whose pictures are kept


class PackError(ConfigError):
    """A pack that cannot be used; one line with file, row, column and what is wrong."""


class Place(NamedTuple):
    """Where a picture lies: a file, one of its row groups, and a row in that; and the row in the file."""

    file: int
    group: int
    row: int
    row_of_file: int


def layout(path: Path, file: str) -> tuple[pa.Schema, list[int]]:
    """The columns of a parquet file, and how many rows each of its row groups has.

    Args:
        file: whose it is, for messages.

    Raises:
        PackError: it is not there, or not readable.
    """
    try:
        found = pq.read_metadata(path)
        return found.schema.to_arrow_schema(), [
            found.row_group(group).num_rows for group in range(found.num_row_groups)
        ]
    except FileNotFoundError:
        raise PackError(f"{file}: no such file; a pack folder has train.parquet and test.parquet") from None
    except (pa.ArrowException, OSError) as err:
        raise PackError(f"{file}: not a readable parquet file: {first_line(err)}") from None


def read_columns(path: Path, file: str, columns: Sequence[str], group: int | None = None) -> pa.Table:
    """Columns of a parquet file, or of one of its row groups; each distinct picture is in memory once.

    Raises:
        PackError: not readable.
    """
    try:
        footer = pq.read_metadata(path)
        leaves = [footer.schema.column(i).path for i in range(footer.num_columns)]
        once = [leaf for leaf in leaves if leaf.split(".")[0] in ("image", "frames")]
        with pq.ParquetFile(path, metadata=footer, read_dictionary=once) as opened:
            return opened.read(columns) if group is None else opened.read_row_group(group, columns)
    except (pa.ArrowException, OSError) as err:
        raise PackError(f"{file}: not a readable parquet file: {first_line(err)}") from None


def pictures_of(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column of pictures as one array of places in a list of distinct ones."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


class Pictures(Mapping[str, Any]):
    """image_id -> encoded picture, in order of first appearance.

    A picture is decoded the first time that it is asked for, so that nobody gets one that was not checked.
    Reading them in order reads every file once.

    Args:
        files: parquet files with the column.
        named: what messages call each.
        places: image_id -> where its picture lies.
    """

    column, key, noun = "image", "image_id", "picture"

    def __init__(self, files: Sequence[Path], named: Sequence[str], places: Mapping[str, Place]) -> None:
        self._files, self._named, self._places = files, named, places
        self._good: set[str] = set()
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Any:
        place = self._places[name]
        found = self._group(place.file, place.group)[place.row]
        if name not in self._good:
            wrong = self._wrong(found)
            if wrong:
                file = self._named[place.file]
                raise PackError(
                    f"{file}: row {place.row_of_file}, column '{self.column}' ({self.key} {name!r}): {wrong}"
                )
            self._good.add(name)
        return self._data(found)

    def _group(self, file: int, group: int) -> Any:
        key = file, group
        if key not in self._kept:
            while len(self._kept) >= GROUPS:
                self._kept.popitem(last=False)
            table = read_columns(self._files[file], self._named[file], [self.column], group)
            self._kept[key] = self._whole(table[self.column])
        self._kept.move_to_end(key)
        return self._kept[key]

    def check(self, rows: Iterator[str]) -> None:
        """Decode every picture, and see that rows of one image_id have one picture.

        Args:
            rows: the image_id of every row of the files, in their order.

        Raises:
            PackError: names file, row and what is wrong.
        """
        seen: dict[str, bytes] = {}
        for number, (path, file) in enumerate(zip(self._files, self._named, strict=True)):
            at = 0
            for group in range(len(layout(path, file)[1])):
                for digest in self._digests(self._group(number, group)):
                    name = next(rows)
                    if digest is None:
                        raise PackError(f"{file}: row {at}, column '{self.column}': no value")
                    if seen.setdefault(name, digest) != digest:
                        first = self._places[name]
                        other = "" if first.file == number else f" of {self._named[first.file]}"
                        raise PackError(
                            f"{file}: row {at}, column '{self.column}': not the {self.noun} of row "
                            f"{first.row_of_file}{other}, which has the same {self.key} {name!r}; "
                            f"{'an' if self.key == 'image_id' else 'a'} {self.key} names one"
                        )
                    if name not in self._good:
                        self[name]
                    at += 1

    def _whole(self, column: pa.ChunkedArray) -> Any:
        """A row group's column, as it is kept."""
        return pictures_of(column)

    def _data(self, found: Any) -> Any:
        """A value of it as Python's own."""
        return found.as_py() or b""

    def _wrong(self, found: Any) -> str | None:
        """What is wrong with it; None = nothing."""
        return check_picture(self._data(found))

    def _digests(self, group: Any) -> Iterator[bytes | None]:
        """Of every row; None = it has no value."""
        digests = [None if data is None else digest_of(data) for data in group.dictionary.to_pylist()]
        return (None if index is None else digests[index] for index in group.indices.to_pylist())


def digest_of(data: bytes) -> bytes:
    """That tells pictures apart."""
    return hashlib.blake2b(data, digest_size=16).digest()
