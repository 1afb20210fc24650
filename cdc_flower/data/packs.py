"""Packs: the one dataset format of the project, a folder with `train.parquet` and `test.parquet`.

A row is a question about a picture, or about a clip: a list of frames. The encoded picture is repeated in
every row about it: parquet stores it once, and it keeps a row complete on its own. A large split may be cut
into numbered files (`train-00000.parquet`), whose pictures stay there until they are asked for
(`cdc_flower.data.pictures`, `.frames`).
Reading is the border where everything is checked once, and whatever is wrong is named by file, row (counted
from 0) and column.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cdc_flower.border import first_line
from cdc_flower.data.features import place_folder
from cdc_flower.data.frames import Clips, stored
from cdc_flower.data.pictures import PackError, Picture, Pictures, Place, layout, read_columns
from cdc_flower.data.rows import TEXT_COLUMNS, as_list, check_alike, check_schema, check_text, without_gaps
from cdc_flower.digests import known
from cdc_flower.stages import DataConfig

SPLITS = ("train", "test")
CAPTION = "caption"
"""The kind (`qtype`) of rows that describe a clip: for retrieval, no question that devices answer."""
_ALLOWED = "'scenes', 'clips' or the path of a folder with train.parquet and test.parquet"


@dataclass(frozen=True)
class Pack:
    """A validated dataset.

    Attributes:
        name: the folder's name, or that of a generator.
        folder: where it was read from; None when generated.
        digest: sha256 (hex) of the files, or of the generator's arguments.
        train: columns `TEXT_COLUMNS` (strings) and any extra ones, `LISTS` as lists; no picture bytes. Of an
            extra one, fractions and lists apart, a null is "", and the column text.
        test: the same for the held-out split.
        train_images: image_id -> encoded picture, in order of first appearance.
        test_images: the same for the held-out split.
        clips: the pictures are clips: `image_id` is the clip's, and its "picture" a tuple of encoded frames.
    """

    name: str
    folder: Path | None
    digest: str
    train: pd.DataFrame
    test: pd.DataFrame
    train_images: Mapping[str, Picture]
    test_images: Mapping[str, Picture]
    clips: bool = False


def shards(folder: Path, split: str) -> list[Path]:
    """The files of a split, in their order: one `train.parquet`, or `train-00000.parquet` and so on."""
    found = sorted(p for p in folder.glob(f"{split}-*.parquet") if re.fullmatch(r".*-\d{5}", p.stem))
    one = folder / f"{split}.parquet"
    if found and one.exists():
        raise PackError(f"{one}: there is {found[0].name}, too; allowed: one file, or numbered ones")
    return found or [one]


def _split(
    files: Sequence[Path], named: Sequence[str], check: bool
) -> tuple[pd.DataFrame, Pictures, pa.Schema]:
    """A split's rows and pictures and its columns, the text of all of it checked; `check`: also the pictures,
    now.
    """
    tables: list[pa.Table] = []
    places: dict[str, Place] = {}
    kind = Pictures
    for number, (path, file) in enumerate(zip(files, named, strict=True)):
        schema, sizes = layout(path, file)
        kind = Clips if check_schema(schema, file) else Pictures
        tables.append(read_columns(path, file, [name for name in schema.names if name != kind.column]))
        check_text(tables[-1], file)
        if tables[-1].schema != tables[0].schema:
            raise PackError(f"{file}: other columns, or of other types, than in {named[0]}")
        names, at = iter(tables[-1][kind.key].to_pylist()), 0
        for group, size in enumerate(sizes):
            for row, name in enumerate(islice(names, size)):
                places.setdefault(name, Place(number, group, row, at + row))
            at += size
    table = pa.concat_tables(tables)
    frame = table.to_pandas(ignore_metadata=True, types_mapper=as_list)
    frame = without_gaps(frame, table).rename(columns={kind.key: "image_id"})
    for column in TEXT_COLUMNS:
        frame[column] = frame[column].astype("str")
    pictures = kind(files, named, places)
    if check:
        pictures.check(iter(frame["image_id"]))
    return frame, pictures, table.schema


def read_pack(folder: str | os.PathLike[str], *, pictures: bool = True) -> Pack:
    """Read and validate a pack folder.

    Args:
        folder: holds `train.parquet` and `test.parquet`, or numbered files of each.
        pictures: decode every picture now, and hash all files; else each is when it is asked for, and files
            that were hashed before are not (`cdc_flower.digests`).

    Raises:
        PackError: a missing folder, file or column, a wrong type, an empty split, question or answer, an
            answer that is too long, a broken or huge picture, one image_id with two pictures, or a column of
            one type in one split and of another in the other.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise PackError(f"data pack '{path}': no such folder; allowed: {_ALLOWED}")
    every = [shards(path, split) for split in SPLITS]
    parts = [_split(files, list(map(str, files)), pictures) for files in every]
    digest = known([*every[0], *every[1]], "pack", lambda: _digest(chain(*every)), fresh=pictures)
    (train, train_images, ours), (test, test_images, theirs) = parts
    check_alike(ours, theirs, str(every[1][0]))
    if type(train_images) is not type(test_images):
        raise PackError(f"data pack '{path}': one split has clips, the other pictures; allowed: one of them")
    clips = isinstance(train_images, Clips)
    return Pack(path.resolve().name, path, digest, train, test, train_images, test_images, clips)


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def write_pack(
    folder: str | os.PathLike[str],
    train_rows: pd.DataFrame,
    test_rows: pd.DataFrame,
    *,
    replacing: bool = True,
) -> None:
    """Validate two splits and write them as a pack folder; nothing is written unless both are valid.

    Args:
        folder: made when missing; its parquet files are replaced, each at once.
        train_rows: pack columns with `image` as bytes, or `frames` as lists of bytes, and any extra columns.
        test_rows: the same for the held-out split.
        replacing: a pack that is there may be overwritten.

    Raises:
        PackError: as `read_pack`, naming the split in place of the file; or the folder cannot be written.
    """
    path, schemas = Path(folder).expanduser(), []
    with new_folder(path, replacing) as part:
        for split, rows in zip(SPLITS, (train_rows, test_rows), strict=True):
            try:
                table, how = _table(rows)
            except (pa.ArrowException, TypeError) as err:
                raise PackError(f"{split} rows: mixed types: {first_line(err)}") from None
            except UnicodeEncodeError as err:
                raise PackError(f"{split} rows: no text that UTF-8 can hold: {first_line(err)}") from None
            file = part / f"{split}.parquet"
            pq.write_table(table, file, compression="zstd", **how)
            schemas.append(_split([file], [f"{split} rows"], check=True)[2])
        check_alike(schemas[0], schemas[1], "test rows")


def _table(rows: pd.DataFrame) -> tuple[pa.Table, dict[str, Any]]:
    """Rows as they are written, and how, so that each frame is stored once in a row group."""
    if "frames" not in rows.columns:
        return pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None), {}
    table = pa.Table.from_pandas(rows.drop(columns="frames"), preserve_index=False)
    table = table.replace_schema_metadata(None).add_column(0, "frames", stored(rows["frames"]))
    return table, {"row_group_size": 4096, "dictionary_pagesize_limit": 2**28}


def free_folder(path: Path, replacing: bool) -> None:
    """Refuse a folder that no pack may be written to.

    Args:
        replacing: a pack that is there may be overwritten.

    Raises:
        PackError: it holds other things than a pack, or one that may not be overwritten.
    """
    old = sorted(path.iterdir()) if path.is_dir() else []
    other = [p.name for p in old if not re.fullmatch(r"(train|test)(-\d{5})?\.parquet", p.name)]
    if other:
        raise PackError(f"folder '{path}' holds other things than a pack: {', '.join(other[:3])}")
    if old and not replacing:
        raise PackError(f"folder '{path}' holds a pack already; allowed: another folder, or --replace")


@contextmanager
def new_folder(path: Path, replacing: bool) -> Iterator[Path]:
    """A folder to write a pack into; it takes the place of `path` when all went well.

    Raises:
        PackError: it cannot be written, or as `free_folder`.
    """
    free_folder(path, replacing)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            yield part
            part.chmod(0o755)
            place_folder(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as err:
        raise PackError(f"data pack '{path}': cannot be written: {err}") from None


def questions(rows: pd.DataFrame, clips: bool) -> pd.DataFrame:
    """The rows that are questions: of clips those of other kinds than `CAPTION`, if there are others."""
    asked = rows["qtype"] != CAPTION
    return rows[asked] if clips and asked.any() else rows


def _scenes(config: DataConfig, seed: int) -> Pack:
    from cdc_flower.data import scenes

    return scenes.generate(config.scenes_train, config.scenes_test, seed=seed)


def _clips(config: DataConfig, seed: int) -> Pack:
    from cdc_flower.data import clips

    return clips.generate(config.clips_users, config.clips_each, seed=seed)


GENERATED: dict[str, Callable[[DataConfig, int], Pack]] = {"scenes": _scenes, "clips": _clips}
"""Names of generated packs -> their maker."""


def check_folder(config: DataConfig) -> None:
    """Refuse a pack whose folder, files or columns are not those of a pack; no row is read.

    Raises:
        PackError: names the setting, or the file and the column.
    """
    if config.pack in GENERATED:
        return
    folder = Path(config.pack).expanduser()
    if not config.pack or not folder.is_dir():
        raise PackError(f"setting 'data.pack' = {config.pack!r}: no such folder; allowed: {_ALLOWED}")
    for split in SPLITS:
        for file in shards(folder, split):
            check_schema(layout(file, str(file))[0], str(file))


def load(config: DataConfig, seed: int = 0) -> Pack:
    """The pack that `config.pack` names: a generated one, or a folder.

    Args:
        seed: of a generated pack. Models are trained on seed 0 and devices live in seed 1, so that nobody was
            trained on a picture that a device meets.

    Raises:
        PackError: neither a known name nor a usable pack folder.
    """
    if config.pack in GENERATED:
        return GENERATED[config.pack](config, seed)
    check_folder(config)
    return read_pack(config.pack, pictures=False)
