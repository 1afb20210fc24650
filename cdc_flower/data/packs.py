"""Packs: the one dataset format of the project, a folder with `train.parquet` and `test.parquet`.

A row is a question about a picture. The encoded picture is repeated in every row about it: parquet compresses
that away, and it keeps a row complete on its own. Reading is the border where everything is checked once,
every distinct picture is decoded once, and whatever is wrong is named by file, row (counted from 0) and
column. Only common bitmap formats are opened, and only up to `MAX_PIXELS`, so a picture from a stranger
cannot exhaust the memory.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from cdc_flower.config import ConfigError
from cdc_flower.data.features import FORMATS
from cdc_flower.stages import DataConfig

TEXT_COLUMNS = ("image_id", "question", "answer", "qtype", "domain", "user")
COLUMNS = ("image", *TEXT_COLUMNS)
"""The columns every pack has; more are allowed and kept."""
LISTS = ("answers", "choices")
"""Columns that a pack may have, of lists of texts: all reference answers, and what was offered."""
NOT_EMPTY = ("image_id", "question", "answer")
SPLITS = ("train", "test")
MAX_PIXELS = 16 * 2**20
"""A picture with more pixels is refused before it is decoded."""
T = TypeVar("T")
_ALLOWED = "'scenes' or the path of a folder with train.parquet and test.parquet"
MAX_ANSWER_CHARS, MAX_TEXT_CHARS = 1000, 4096


class PackError(ConfigError):
    """A pack that cannot be used; one line with file, row, column and what is wrong."""


@dataclass(frozen=True)
class Pack:
    """A validated dataset.

    Attributes:
        name: the folder's name, or "scenes".
        folder: where it was read from; None when generated.
        digest: sha256 (hex) of the files, or of the generator's arguments.
        train: columns `TEXT_COLUMNS` (strings) and any extra ones, `LISTS` as lists; no picture bytes.
        test: the same for the held-out split.
        train_images: image_id -> encoded picture, in order of first appearance.
        test_images: the same for the held-out split.
    """

    name: str
    folder: Path | None
    digest: str
    train: pd.DataFrame
    test: pd.DataFrame
    train_images: Mapping[str, bytes]
    test_images: Mapping[str, bytes]


def check_picture(data: bytes) -> str | None:
    """Decode one encoded picture completely.

    Returns:
        None when it is a readable picture of at most `MAX_PIXELS` pixels, else what is wrong.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning: the bound below is the stricter one
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    return f"{width}x{height} pixels, allowed are {MAX_PIXELS} in all"
                picture.load()
    except UnidentifiedImageError:
        return f"not a readable picture ({len(data)} bytes); allowed formats: {', '.join(FORMATS)}"
    except Image.DecompressionBombError:
        return f"too many pixels, allowed are {MAX_PIXELS} in all"
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as err:  # what Pillow's decoders raise
        return f"broken picture ({len(data)} bytes): {err}"
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_texts(kind: pa.DataType) -> bool:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return listed and (_is_text(kind.value_type) or pa.types.is_null(kind.value_type))


def _as_list(kind: pa.DataType) -> Any:
    """The pandas type of a list column: as it is in Arrow, a fraction of the memory of Python's lists."""
    return pd.ArrowDtype(kind) if _is_texts(kind) else None


def _line(err: BaseException) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]


def _first(values: list[Any], wrong: Callable[[Any], bool]) -> int | None:
    """Position of the first wrong value."""
    return next((row for row, value in enumerate(values) if wrong(value)), None)


def _check_schema(schema: pa.Schema, file: str) -> None:
    """Check names and types of the columns of one split; `file` is only used in messages."""
    for column in schema.names:
        if schema.names.count(column) > 1:
            raise PackError(f"{file}: column '{column}' is there twice; allowed: once")
    for column in COLUMNS:
        if column not in schema.names:
            raise PackError(
                f"{file}: column '{column}' is missing; a pack needs {', '.join(COLUMNS)}; "
                f"found {', '.join(schema.names) or 'none'}"
            )
        kind = schema.field(column).type
        wanted = "bytes" if column == "image" else "text"
        if not (_is_bytes(kind) if column == "image" else _is_text(kind)):
            raise PackError(f"{file}: column '{column}' holds {kind}, it must hold {wanted}")


def _validate(table: pa.Table, file: str) -> tuple[pd.DataFrame, dict[str, bytes]]:
    """Check one split and take the pictures out of it; `file` is only used in messages."""
    _check_schema(table.schema, file)
    if not table.num_rows:
        raise PackError(f"{file}: the split is empty; at least one row is needed")
    values = {column: table[column].to_pylist() for column in COLUMNS}
    for column in COLUMNS:
        row = _first(values[column], lambda value: value is None)
        if row is not None:
            raise PackError(f"{file}: row {row}, column '{column}': no value")
    for column in NOT_EMPTY:
        row = _first(values[column], lambda text: not text.strip())
        if row is not None:
            raise PackError(f"{file}: row {row}, column '{column}': empty")
    _check_length(file, "answer", values["answer"])
    for column in set(LISTS) & set(table.column_names):
        _check_lists(table, file, column)
    for column in set(TEXT_COLUMNS) - {"answer"}:
        _check_length(file, column, values[column], MAX_TEXT_CHARS)
    images = _pictures(values["image_id"], values["image"], file)
    frame = table.drop_columns(["image"]).to_pandas(ignore_metadata=True, types_mapper=_as_list)
    for column in TEXT_COLUMNS:
        frame[column] = frame[column].astype("str")
    return frame, images


def _check_length(
    file: str, column: str, texts: list[str], most: int = MAX_ANSWER_CHARS, row: int | None = None
) -> None:
    at = _first(texts, lambda text: len(text) > most)
    if at is not None:
        raise PackError(
            f"{file}: row {at if row is None else row}, column '{column}': {len(texts[at])} characters "
            f"({texts[at][:24]!r}...), allowed are {most}"
        )


def _check_lists(table: pa.Table, file: str, column: str) -> None:
    """Refuse a list column that holds other things than texts, or an empty text; only `choices` may be []."""
    kind = table.schema.field(column).type
    if not _is_texts(kind):
        raise PackError(f"{file}: column '{column}' holds {kind}, it must hold lists of texts")
    for row, texts in enumerate(table[column].to_pylist()):
        missing = texts is None or (not texts and column == "answers")
        if missing or any(text is None or not text.strip() for text in texts or ()):
            raise PackError(f"{file}: row {row}, column '{column}': no list, or an empty text in it")
        _check_length(file, column, texts or [], row=row)


def _pictures(ids: list[str], pictures: list[bytes], file: str) -> dict[str, bytes]:
    images: dict[str, bytes] = {}
    first_row: dict[str, int] = {}
    for row, (name, data) in enumerate(zip(ids, pictures, strict=True)):
        if name not in images:
            images[name], first_row[name] = data, row
        elif images[name] != data:
            raise PackError(
                f"{file}: row {row}, column 'image': not the picture of row {first_row[name]}, "
                f"which has the same image_id {name!r}; an image_id names one picture"
            )
    good: set[bytes] = set()
    for name, data in images.items():
        if data in good:
            continue
        wrong = check_picture(data)
        if wrong:
            raise PackError(f"{file}: row {first_row[name]}, column 'image' (image_id {name!r}): {wrong}")
        good.add(data)
    return images


def _read(path: Path, read: Callable[[pq.ParquetFile, str], T]) -> T:
    """What `read` makes of the open file and of its name."""
    file = str(path)
    try:
        with pq.ParquetFile(path) as file_of_rows:
            return read(file_of_rows, file)
    except FileNotFoundError:
        raise PackError(f"{file}: no such file; a pack folder has train.parquet and test.parquet") from None
    except (pa.ArrowException, OSError) as err:
        raise PackError(f"{file}: not a readable parquet file: {_line(err)}") from None


def read_pack(folder: str | os.PathLike[str]) -> Pack:
    """Read and validate a pack folder.

    Args:
        folder: holds `train.parquet` and `test.parquet`.

    Raises:
        PackError: a missing folder, file or column, a wrong type, an empty split, question or answer, an
            answer that is too long, a broken or huge picture, or one image_id with two pictures.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise PackError(f"data pack '{path}': no such folder; allowed: {_ALLOWED}")
    digest = hashlib.sha256()
    parts = []
    for split in SPLITS:
        source = path / f"{split}.parquet"
        table = _read(source, lambda file, _: file.read())
        parts.append(_validate(table, str(source)))
        with source.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    (train, train_images), (test, test_images) = parts
    return Pack(path.resolve().name, path, digest.hexdigest(), train, test, train_images, test_images)


def write_pack(folder: str | os.PathLike[str], train_rows: pd.DataFrame, test_rows: pd.DataFrame) -> None:
    """Validate two splits and write them as a pack folder; nothing is written unless both are valid.

    Args:
        folder: made when missing; its two parquet files are replaced atomically.
        train_rows: pack columns with `image` as bytes, and any extra columns.
        test_rows: the same for the held-out split.

    Raises:
        PackError: as `read_pack`, naming the split in place of the file; or the folder cannot be written.
    """
    path = Path(folder).expanduser()
    tables = {}
    for split, rows in zip(SPLITS, (train_rows, test_rows), strict=True):
        try:
            table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
        except pa.ArrowException as err:
            raise PackError(f"{split} rows: mixed types: {_line(err)}") from None
        _validate(table, f"{split} rows")
        tables[split] = table
    try:
        path.mkdir(parents=True, exist_ok=True)
        for split, table in tables.items():
            part = path / f".{split}.{os.getpid()}.part"
            try:
                pq.write_table(table, part, compression="zstd")
                part.replace(path / f"{split}.parquet")
            finally:
                part.unlink(missing_ok=True)
    except OSError as err:
        raise PackError(f"data pack '{path}': cannot be written: {err}") from None


def _scenes(config: DataConfig, seed: int) -> Pack:
    from cdc_flower.data import scenes

    return scenes.generate(config.scenes_train, config.scenes_test, seed=seed)


GENERATED: dict[str, Callable[[DataConfig, int], Pack]] = {"scenes": _scenes}
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
        _read(folder / f"{split}.parquet", lambda file, name: _check_schema(file.schema_arrow, name))


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
    return read_pack(config.pack)
