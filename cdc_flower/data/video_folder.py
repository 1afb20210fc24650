"""The importer of clips: a folder of video files, with a table that asks about them, becomes a pack."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cdc_flower.data.columns import TABLES, fields_of, filled, lines_of, mapped, only_table, resolved, row_of
from cdc_flower.data.packs import SPLITS, free_folder
from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.files import Part
from cdc_flower.data.published.write import Files, cut, write_parts
from cdc_flower.data.rows import LISTS
from cdc_flower.data.video import Sampling, read_clip

NEEDED = ("file", "question", "answer")


def from_videos(
    source_folder: str | os.PathLike[str],
    out_folder: str | os.PathLike[str],
    *,
    table: str = "",
    mapping: Mapping[str, str] | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    missing: float = 0.0,
    test_share: float = 0.2,
    replacing: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Make a pack of clips from a folder of video files and a CSV or JSON lines file that asks about them.

    Args:
        source_folder: holds the videos, or folders with them, and the table.
        out_folder: the pack folder to write; it appears whole or not at all.
        table: name of the file in `source_folder`; "" = the only `*.csv` or `*.jsonl` there.
        mapping: pack column -> field of the table, where the names differ. The fields `file` (path inside the
            folder), `question` and `answer` are needed; `qtype, domain, user` default to ""; `split` is
            "train" or "test" (default train). Further fields are kept as text. `clip_id` is the path.
        sampling: which frames are kept.
        missing: share of the videos that may be absent or broken; their questions are left out.
        test_share: clips held out where no line is of the test split.
        replacing: a pack that is there may be overwritten.
        say: gets a line for everything that is left out or kept besides.

    Raises:
        PackError: a missing file or field, a line that cannot be read (with its number), a video that cannot
            be used, or an invalid pack.
    """
    folder = Path(source_folder).expanduser()
    if not folder.is_dir():
        raise PackError(f"source '{folder}': no such folder")
    free_folder(Path(out_folder).expanduser(), replacing)
    path = folder / table if table else only_table(folder)
    if not path.is_file() or path.suffix.lower() not in TABLES:
        raise PackError(f"source '{path}'; allowed: a file in the folder that ends in {' or '.join(TABLES)}")
    inside = folder.resolve()
    fields = fields_of(mapping, NEEDED)
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for where, record in mapped(lines_of(path), mapping, str(path)):
        row = row_of(record, fields, where)
        name = record.get(fields["file"])
        if not isinstance(name, str) or not name.strip():
            raise PackError(f"{where}: field '{fields['file']}' (column 'file') must be the path of a video")
        at = resolved(inside, name.strip(), where, "video")
        if not at.is_relative_to(inside):
            raise PackError(
                f"{where}: video '{name}' is outside of the source folder; allowed: paths inside it"
            )
        split = row.pop("split") or "train"
        if split not in splits:
            raise PackError(f"{where}: split '{split}'; allowed: {', '.join(SPLITS)}")
        splits[split].append({**row, "image_id": at.relative_to(inside).as_posix(), "split": split})
    rows = filled([row for of in splits.values() for row in of], str(path), say)
    parts = []
    for split in SPLITS:
        if own := [row for row in rows if row["split"] == split]:
            plain = pa.Table.from_pylist(own).drop_columns("split")
            for name in set(LISTS) & set(plain.column_names):  # of empty lists alone Arrow knows no type
                at = plain.column_names.index(name)
                plain = plain.set_column(at, name, plain[name].cast(pa.list_(pa.string())))
            parts.append(Part(path.name, split, plain, clips=True))

    def find(name: str) -> Path | None:
        return inside / name if (inside / name).is_file() else None

    files = Files(folder, find, str, lambda at: read_clip(at, sampling), missing, say, clips=True)
    write_parts(cut(parts, test_share), files, out_folder, replacing=replacing)
