"""From the parts of data sets to a pack. One row group of pictures, or of frames of clips, is in memory at a
time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cdc_flower.border import first_line
from cdc_flower.data.bitmaps import MAX_BYTES, check_picture
from cdc_flower.data.packs import SPLITS, check_text, free_folder, new_folder
from cdc_flower.data.pictures import PackError
from cdc_flower.data.published import DATA_SETS
from cdc_flower.data.published.files import Part, Source, file_names
from cdc_flower.data.shards import Writer
from cdc_flower.data.video import Clip, Sampling, pyav, read_clip

TOLD = 10_000  # pictures between two lines that say how far an import is
TOLD_CLIPS = 500


@dataclass(frozen=True)
class Files:
    """Where the picture or video of an image_id lies, and what is made of it.

    Attributes:
        folder: that they are in, for messages.
        find: image_id -> its file; None = it is not there.
        names: image_id -> what its file is called, for messages.
        read: raises PackError, without the file's name, where a file cannot be used.
        missing: share of the pictures of a part that may be absent or broken.
        say: gets a line for everything that is left out.
        clips: the files are videos.
    """

    folder: Path
    find: Callable[[str], Path | None]
    names: Callable[[str], str]
    read: Callable[[Path], bytes | Clip]
    missing: float
    say: Callable[[str], None]
    clips: bool

    @property
    def what(self) -> str:
        """Pictures or videos, in words."""
        return "videos" if self.clips else "pictures"


def picture_at(path: Path) -> bytes:
    """An encoded picture.

    Raises:
        PackError: without the file's name: too large, or no picture.
    """
    small = path.stat().st_size <= MAX_BYTES
    data = path.read_bytes() if small else b""
    wrong = check_picture(data) if small else f"more than {MAX_BYTES} bytes"
    if wrong:
        raise PackError(wrong)
    return data


def import_published(
    name: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    missing: float = 0.01,
    pictures: int | None = None,
    test_share: float = 0.2,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    replacing: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Make a pack from downloaded files; the folder appears whole or not at all.

    Args:
        name: one of `DATA_SETS`.
        source: the folder that the files are in, or in folders below it.
        out: the pack folder to write.
        missing: share of the pictures (or videos) of a part that may be absent or broken; their questions are
            left out.
        pictures: at most so many of each part, chosen by a stable hash of their names; None = all.
        test_share: of the pictures that are held out where a data set has one part only.
        sampling: which frames of a video are kept.
        replacing: a pack that is there may be overwritten.
        say: gets a line for everything that is left out.

    Raises:
        PackError: a file is missing or is not in its published form, or too many pictures are missing.
    """
    if name not in DATA_SETS:
        raise PackError(f"data set '{name}'; allowed: {', '.join(DATA_SETS)}")
    if not 0 <= missing <= 1 or (pictures is not None and pictures < 1):
        raise PackError("allowed: 'missing' from 0 to 1, 1 picture or more")
    free_folder(Path(out).expanduser(), replacing)
    downloads = Source(source, say)
    parts = [part for read in DATA_SETS[name] for part in cut(read(downloads), test_share)]
    clips = any(part.clips for part in parts)
    files = Files(
        downloads.folder,
        lambda image_id: downloads.find(file_names(image_id)),
        lambda image_id: file_names(image_id)[0],
        (lambda path: read_clip(path, sampling)) if clips else picture_at,
        missing,
        say,
        clips,
    )
    write_parts(parts, files, out, pictures=pictures, replacing=replacing)


def write_parts(
    parts: Sequence[Part],
    files: Files,
    out: str | os.PathLike[str],
    *,
    pictures: int | None = None,
    replacing: bool = False,
) -> None:
    """Write a pack of the parts; no picture is in both of its splits.

    Raises:
        PackError: a row that no pack may have, or too many pictures are missing or broken.
    """
    if files.clips:
        pyav()  # said before anything is read
    for part in parts:
        check_text(part.rows, f"{part.name}, {part.split} rows")
    parts = [found(limited(part, pictures), files) for part in apart(parts, files)]
    with new_folder(Path(out).expanduser(), replacing) as folder, Writer(folder) as writer:
        for split in SPLITS:
            _write(writer, split, [part.rows for part in parts if part.split == split], files)


def rank(image_id: str, purpose: str) -> float:
    """A number in 0..1 that a picture's name alone decides."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {image_id}".encode()).digest()[:7], "big") / 2**56


def _where(rows: pa.Table, wanted: Callable[[str], bool]) -> pa.Table:
    """The rows of the pictures that are wanted."""
    names = rows["image_id"].unique()
    kept = [name for name in names.to_pylist() if wanted(name)]
    chosen: Any = pc  # its functions are made when it is imported, unseen by type checkers
    return rows.filter(chosen.is_in(rows["image_id"], pa.array(kept, pa.string())))


def cut(parts: Sequence[Part], share: float) -> list[Part]:
    """The parts of a data set; of a single one, train and test by whole pictures.

    Raises:
        PackError: a share that is none.
    """
    if not 0 < share < 1:
        raise PackError(f"test share {share}; allowed: a test share above 0 and below 1")
    if len(parts) != 1:
        return list(parts)
    (part,) = parts
    names = sorted(part.rows["image_id"].unique().to_pylist(), key=lambda name: (rank(name, "test"), name))
    count = sum(rank(name, "test") < share for name in names)
    chosen = set(names[: min(max(count, 1), len(names) - 1)])
    splits = {"train": lambda name: name not in chosen, "test": chosen.__contains__}
    return [replace(part, split=split, rows=_where(part.rows, has)) for split, has in splits.items()]


def apart(parts: Sequence[Part], files: Files) -> list[Part]:
    """The parts, without the test rows of pictures that are asked about in train."""
    train = {n for p in parts if p.split == "train" for n in p.rows["image_id"].unique().to_pylist()}
    kept = []
    for part in parts:
        rows = part.rows if part.split == "train" else _where(part.rows, lambda name: name not in train)
        if len(rows) < len(part.rows):
            files.say(
                f"{part.name}: {len(part.rows) - len(rows)} of {len(part.rows)} test questions are left out, "
                f"because their {files.what} are among those of train"
            )
        kept.append(replace(part, rows=rows))
    return kept


def limited(part: Part, pictures: int | None) -> Part:
    """At most so many pictures of a part."""
    names = part.rows["image_id"].unique().to_pylist()
    if pictures is None or len(names) <= pictures:
        return part
    chosen = set(sorted(names, key=lambda name: rank(name, "limit"))[:pictures])
    return replace(part, rows=_where(part.rows, lambda name: name in chosen))


def found(part: Part, files: Files) -> Part:
    """The rows whose pictures are there.

    Raises:
        PackError: more are missing than may be, or all.
    """
    names = part.rows["image_id"].unique().to_pylist()
    lost = [name for name in names if files.find(name) is None]
    if lost:
        line = (
            f"{part.name}, {part.split}: {len(lost)} of {len(names)} {files.what} are not in "
            f"'{files.folder}', first '{files.names(lost[0])}'"
        )
        if len(lost) > files.missing * len(names) or len(lost) == len(names):
            raise PackError(f"{line}; allowed: up to {files.missing:.1%} (--missing)")
        files.say(f"{line}; their questions are left out")
    gone = set(lost)
    return replace(part, rows=_where(part.rows, lambda name: name not in gone)) if gone else part


def _write(writer: Writer, split: str, tables: Sequence[pa.Table], files: Files) -> None:
    """All pictures of a split, each with its questions, in order of first appearance."""
    rows = pa.concat_tables(tables)
    codes, names = pd.factorize(rows["image_id"].to_numpy(zero_copy_only=False))
    rows = rows.take(np.argsort(codes, kind="stable"))
    ends = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
    broken = written = 0
    for done, (name, (start, end)) in enumerate(zip(names, pairwise(ends.tolist()), strict=True), start=1):
        path = files.find(name)
        assert path is not None
        try:
            data = files.read(path)
        except (OSError, PackError) as err:
            wrong = first_line(err)
            broken += 1
            if broken > files.missing * len(names):
                allowed = f"{broken} such {files.what}, allowed {files.missing:.1%} (--missing)"
                raise PackError(f"{path}: {wrong}; {allowed}") from None
            files.say(f"{path}: {wrong}; its questions are left out")
            continue
        writer.add(split, data, rows.slice(start, end - start))
        written += 1
        if done % (TOLD_CLIPS if files.clips else TOLD) == 0:
            files.say(f"{split}: {done:,} of {len(names):,} {files.what}")
    if not written:
        raise PackError(f"{split}: none of the {files.what} is left")
