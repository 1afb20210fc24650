"""Importers: other people's data becomes a pack.

Two sources are enough in practice: a folder of pictures with a JSONL file, and anything that Hugging Face
`datasets` can open, by hub name or saved on disk. Both are mapped column by column, split by whole pictures
where the source has no test split, and go through the same validation and the same writer as every other
pack. Pictures keep their encoded bytes; only pictures that exist as arrays alone are encoded, as PNG.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from cdc_flower.data.bitmaps import check_picture
from cdc_flower.data.packs import LISTS, NOT_EMPTY, SPLITS, write_pack
from cdc_flower.data.partition import hold_out
from cdc_flower.data.pictures import PackError

NEEDED = ("image", "question", "answer")
"""Pack columns that a source must have."""
OPTIONAL = ("qtype", "domain", "user", "split")
"""Columns that default to ""; `split` is read from JSONL lines only and is not part of a pack."""


def _cell(value: Any, where: str, column: str) -> Any:
    """A list column as it is, others as text; of a list of answers the most frequent, the first of equals."""
    listed = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    if listed and column in LISTS:
        return [item.strip() for item in value]
    if listed and value:
        value = Counter(value).most_common(1)[0][0]
    if column in LISTS or isinstance(value, bool) or not isinstance(value, str | int | float):
        allowed = "a list of texts" if column in LISTS else "text, a number, or a list of texts"
        raise PackError(f"{where}, column '{column}': {type(value).__name__} found; allowed: {allowed}")
    text = str(value).strip()
    if column in NOT_EMPTY and not text:
        raise PackError(f"{where}, column '{column}': empty")
    return text


def _row(record: Mapping[str, Any], fields: Mapping[str, str], where: str) -> dict[str, Any]:
    """The text columns of one source record; a list of answers is also the row's `answers`."""
    row: dict[str, Any] = {}
    for column, field in fields.items():
        value = record.get(field)
        if column == "image":
            continue
        if value is not None:
            row[column] = _cell(value, where, column)
            if column == "answer" and isinstance(value, list | tuple):
                row.setdefault("answers", _cell(value, where, "answers"))
        elif column in OPTIONAL:
            row[column] = ""
        else:
            raise PackError(
                f"{where}: field '{field}' (column '{column}') is missing; found: "
                f"{', '.join(map(str, record)) or 'nothing'}"
            )
    return row


def _fields(mapping: Mapping[str, str] | None) -> dict[str, str]:
    """Column -> field for all needed and optional columns and all that are mapped; unmapped: its own name."""
    named = dict(mapping or {})
    for column, field in named.items():
        if not isinstance(field, str) or not field:
            raise PackError(f"mapping: column '{column}' must name a field of the source, not {field!r}")
    return {column: column for column in (*NEEDED, *OPTIONAL)} | named


def _frame(rows: Iterable[dict[str, Any]], source: str) -> pd.DataFrame:
    found = list(rows)
    if any("answers" in row for row in found):
        found = [{"answers": [row["answer"]], **row} for row in found]
    frame = pd.DataFrame(found)
    if frame.empty:
        raise PackError(f"{source}: no rows")
    return frame


# --- a folder of pictures and a JSONL file ------------------------------------------------------------------


def _only_jsonl(folder: Path) -> Path:
    found = sorted(folder.glob("*.jsonl"))
    if len(found) != 1:
        raise PackError(
            f"{folder}: {len(found)} files named *.jsonl "
            f"({', '.join(f.name for f in found) or 'none'}); allowed: exactly one, or name it"
        )
    return found[0]


def _picture_in(folder: Path, name: str, where: str) -> tuple[str, bytes]:
    """Image id (the path inside the folder) and bytes of a picture that must lie inside the folder."""
    path = (folder / name).resolve()
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


def _jsonl_rows(folder: Path, lines: Path, fields: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    pictures: dict[str, tuple[str, bytes]] = {}
    with lines.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            where = f"{lines}: line {number}"
            try:
                record = json.loads(line)
            except ValueError as err:
                raise PackError(f"{where}: not JSON: {err}") from None
            if not isinstance(record, dict):
                raise PackError(f"{where}: {type(record).__name__} found; allowed: one JSON object a line")
            row = _row(record, fields, where)
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
) -> None:
    """Make a pack from a folder of pictures and a JSONL file that asks about them.

    Args:
        source_folder: holds the pictures and the JSONL file.
        out_folder: the pack folder to write.
        jsonl: name of the file in `source_folder`; "" = the only `*.jsonl` there.
        mapping: pack column -> field of a line, where the names differ. The fields `image` (path inside the
            folder), `question` and `answer` are needed; `qtype, domain, user` default to ""; `split` is
            "train" or "test" (default train). Other columns that are mapped are kept as text; `image_id` is
            the picture's path unless it is mapped.
        test_share: pictures held out where no line is of the test split.
        seed: of that choice.

    Raises:
        PackError: a missing file, field or picture, a line that is not JSON (with its number), or an invalid
            pack.
    """
    folder = Path(source_folder).expanduser()
    if not folder.is_dir():
        raise PackError(f"source '{folder}': no such folder")
    lines = folder / jsonl if jsonl else _only_jsonl(folder)
    if not lines.is_file():
        raise PackError(f"source '{lines}': no such file")
    frame = _frame(_jsonl_rows(folder, lines, _fields(mapping)), str(lines))
    held = (frame["split"] == "test").to_numpy(dtype=bool)
    columns = frame.drop(columns="split")
    if held.any():
        train, test = columns.loc[~held].reset_index(drop=True), columns.loc[held].reset_index(drop=True)
    else:
        train, test = hold_out(columns, test_share, seed)
    write_pack(out_folder, train, test)


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
    dataset = dataset.select_columns(list(dict.fromkeys(present.values())))
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
        row = absent | _row(record, present, where)
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

    Raises:
        PackError: the dataset cannot be opened, a split or field is missing, or the pack is invalid.
    """
    parts = _open(name_or_path, subset)
    for split in (train_split, *([test_split] if test_split else [])):
        if split not in parts:
            raise PackError(f"dataset '{name_or_path}': no split '{split}'; allowed: {', '.join(parts)}")
    if test_split is None and "test" in parts and train_split != "test":
        test_split = "test"
    fields = {column: field for column, field in _fields(mapping).items() if column != "split"}

    def rows(split: str) -> pd.DataFrame:
        source = f"dataset '{name_or_path}', split '{split}'"
        return _frame(_dataset_rows(parts[split], fields, source, limit), source)

    if test_split:
        train, test = rows(train_split), rows(test_split)
    else:
        train, test = hold_out(rows(train_split), test_share, seed)
    write_pack(out_folder, train, test)
