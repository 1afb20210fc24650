"""Importers: other people's data becomes a pack.

Two sources are enough in practice: a folder of pictures with a JSONL or CSV file, and anything that Hugging
Face `datasets` can open, by hub name or saved on disk. Both are mapped column by column, split by whole
pictures where the source has no test split, and go through the same validation and the same writer as every
other pack. Pictures keep their encoded bytes; only pictures that exist as arrays alone are encoded, as PNG.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cdc_flower.data.bitmaps import check_picture
from cdc_flower.data.columns import (
    OPTIONAL,
    check_mapped,
    fields_of,
    frame_of,
    lines_of,
    mapped,
    only_table,
    resolved,
    row_of,
)
from cdc_flower.data.packs import SPLITS, free_folder, write_pack
from cdc_flower.data.partition import hold_out
from cdc_flower.data.pictures import PackError
from cdc_flower.data.rows import LISTS

# --- a folder of pictures and a table -----------------------------------------------------------------------


def _picture_in(folder: Path, name: str, where: str) -> tuple[str, bytes]:
    """Image id (the path inside the folder) and bytes of a picture that must lie inside the folder."""
    path = resolved(folder, name, where, "picture")
    if not path.is_relative_to(folder.resolve()):
        raise PackError(
            f"{where}: picture '{name}' is outside of the source folder; allowed: paths inside it"
        )
    try:
        data = path.read_bytes()
    except OSError:
        raise PackError(
            f"{where}: picture '{name}' is not there or cannot be read (looked for {path})"
        ) from None
    wrong = check_picture(data)
    if wrong:
        raise PackError(f"{where}: picture '{name}': {wrong}")
    return path.relative_to(folder.resolve()).as_posix(), data


def _table_rows(folder: Path, table: Path, mapping: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    fields, pictures = fields_of(mapping), dict[str, tuple[str, bytes]]()
    for where, record in mapped(lines_of(table), mapping, str(table)):
        row = row_of(record, fields, where)
        name = record.get(fields["image"])
        if not isinstance(name, str) or not name:
            raise PackError(
                f"{where}: field '{fields['image']}' (column 'image') must be the path of a picture"
            )
        if name not in pictures:
            pictures[name] = _picture_in(folder, name, where)
        path, row["image"] = pictures[name]
        row.setdefault("image_id", path)
        row["split"] = row["split"] or "train"
        if row["split"] not in SPLITS:
            raise PackError(f"{where}: split '{row['split']}'; allowed: {', '.join(SPLITS)}")
        yield row


def from_jsonl(
    source_folder: str | os.PathLike[str],
    out_folder: str | os.PathLike[str],
    *,
    jsonl: str = "",
    mapping: Mapping[str, str] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    replacing: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Make a pack from a folder of pictures and a JSONL file, or CSV file with a head, that asks about them.

    Args:
        source_folder: holds the pictures and the file.
        out_folder: the pack folder to write.
        jsonl: name of the file in `source_folder`; "" = the only `*.jsonl` or `*.csv` there.
        mapping: pack column -> field of a line, where the names differ. The fields `image` (path inside the
            folder), `question` and `answer` are needed; `qtype, domain, user` default to ""; `split` is
            "train" or "test" (default train). Further fields are kept as text; `image_id` is the picture's
            path unless it is mapped.
        test_share: pictures held out where no line is of the test split.
        seed: of that choice.
        replacing: a pack that is there may be overwritten.
        say: gets a line that names the further columns.

    Raises:
        PackError: a missing file, field or picture, a line that cannot be read (with its number), or an
            invalid pack.
    """
    folder = Path(source_folder).expanduser()
    if not folder.is_dir():
        raise PackError(f"source '{folder}': no such folder")
    table = folder / jsonl if jsonl else only_table(folder)
    if not table.is_file():
        raise PackError(f"source '{table}': no such file")
    free_folder(Path(out_folder).expanduser(), replacing)
    frame = frame_of(_table_rows(folder, table, mapping), str(table), say)
    held = (frame["split"] == "test").to_numpy(dtype=bool)
    columns = frame.drop(columns="split")
    if held.all():
        raise PackError(
            f"{table}: no line is of train, all say split 'test'; allowed: lines of both, or of none"
        )
    if held.any():
        train, test = columns.loc[~held].reset_index(drop=True), columns.loc[held].reset_index(drop=True)
    else:
        train, test = hold_out(columns, test_share, seed)
    write_pack(out_folder, train, test, replacing=replacing)


# --- Hugging Face datasets ----------------------------------------------------------------------------------


def _open(name: str, subset: str | None) -> Mapping[str, Any]:
    """Split name -> `datasets.Dataset`, from disk where the path exists, else from the hub."""
    import datasets

    try:
        on_disk = Path(name).expanduser()
        found = (
            datasets.load_from_disk(str(on_disk)) if on_disk.exists() else datasets.load_dataset(name, subset)
        )
    except (OSError, ValueError, RuntimeError, ImportError) as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise PackError(
            f"dataset '{name}': cannot be opened: {reason}; allowed: a folder written by "
            "save_to_disk, or a dataset of the Hugging Face hub"
        ) from None
    if isinstance(found, datasets.Dataset):
        return {"train": found}
    return {str(split): dataset for split, dataset in found.items()}


def _picture_bytes(value: Any, where: str) -> bytes:
    """The encoded picture in a cell: bytes, a path, `{"bytes", "path"}`, or a PIL image (encoded as PNG)."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        try:
            value = Path(value).read_bytes()
        except OSError:
            raise PackError(
                f"{where}, column 'image': picture '{value}' is not there or cannot be read"
            ) from None
    if isinstance(value, Image.Image):
        stream = io.BytesIO()
        (value if value.mode in ("1", "L", "P", "RGB", "RGBA") else value.convert("RGB")).save(stream, "PNG")
        value = stream.getvalue()
    if not isinstance(value, bytes):
        raise PackError(
            f"{where}, column 'image': {type(value).__name__} found; allowed: an Image feature, "
            "bytes, or the path of a picture"
        )
    return value


def _dataset_rows(
    dataset: Any, fields: Mapping[str, str], name: str, limit: int | None
) -> Iterator[dict[str, Any]]:
    import datasets

    for column, field in fields.items():
        if field not in dataset.column_names and column not in OPTIONAL:
            raise PackError(
                f"{name}: field '{field}' (column '{column}') is missing; allowed: "
                f"{', '.join(dataset.column_names)}"
            )
    present = {column: field for column, field in fields.items() if field in dataset.column_names}
    absent = {column: "" for column in fields if column not in present}
    plain = [
        field
        for field, feature in dataset.features.items()
        if field in LISTS or isinstance(feature, datasets.Value | datasets.ClassLabel)
    ]
    dataset = dataset.select_columns(list(dict.fromkeys([*present.values(), *plain])))
    if isinstance(dataset.features[fields["image"]], datasets.Image):
        dataset = dataset.cast_column(fields["image"], datasets.Image(decode=False))  # keep the encoded bytes
    labels = {
        field: feature
        for field, feature in dataset.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for number, record in enumerate(dataset if limit is None else dataset.take(min(limit, len(dataset)))):
        where = f"{name}: row {number}"
        for field, label in labels.items():
            record[field] = None if record[field] is None else label.int2str(record[field])
        row = absent | row_of(record, present, where)
        row["image"] = _picture_bytes(record[fields["image"]], where)
        row.setdefault("image_id", hashlib.sha256(row["image"]).hexdigest()[:16])
        yield row


def from_datasets(
    name_or_path: str,
    out_folder: str | os.PathLike[str],
    mapping: Mapping[str, str] | None = None,
    *,
    subset: str | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    limit: int | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    replacing: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Make a pack from a Hugging Face dataset.

    Args:
        name_or_path: a folder written by `save_to_disk`, else a name on the hub.
        out_folder: the pack folder to write.
        mapping: pack column -> field of the dataset, where the names differ. The image field may be an Image
            feature, bytes, or a path; class labels become their names. Needed and optional columns are those
            of `from_jsonl`; `image_id` is a hash of the picture unless it is mapped.
        subset: configuration of a hub dataset.
        train_split: split that becomes train.
        test_split: split that becomes test; None = "test" where there is one, else pictures are held out.
        limit: at most so many rows of each split.
        test_share: pictures held out where there is no test split.
        seed: of that choice.
        replacing: a pack that is there may be overwritten.
        say: gets a line that names the further columns.

    Raises:
        PackError: the dataset cannot be opened, a split or field is missing, or the pack is invalid.
    """
    free_folder(Path(out_folder).expanduser(), replacing)
    parts = _open(name_or_path, subset)
    for split in (train_split, *([test_split] if test_split else [])):
        if split not in parts:
            raise PackError(f"dataset '{name_or_path}': no split '{split}'; allowed: {', '.join(parts)}")
    if test_split is None and "test" in parts and train_split != "test":
        test_split = "test"
    fields = {column: field for column, field in fields_of(mapping).items() if column != "split"}
    for split in (train_split, *([test_split] if test_split else [])):
        check_mapped(mapping, parts[split].column_names, f"dataset '{name_or_path}', split '{split}'")

    def rows(split: str) -> pd.DataFrame:
        source = f"dataset '{name_or_path}', split '{split}'"
        return frame_of(_dataset_rows(parts[split], fields, source, limit), source, say)

    if test_split:
        train, test = rows(train_split), rows(test_split)
    else:
        train, test = hold_out(rows(train_split), test_share, seed)
    write_pack(out_folder, train, test, replacing=replacing)
