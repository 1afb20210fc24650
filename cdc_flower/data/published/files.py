"""Files of data sets as they are downloaded: found by their published names, read field by field, kept as
columns.

Text is held in memory as Arrow columns, about 250 bytes a question.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cdc_flower.data.pictures import PackError
from cdc_flower.data.video import ENDINGS

DEPTH = 4  # folders below the source that are looked into
BATCH = 5_000  # rows that are Python objects at a time
VIDEOS = ("msrvtt", "activitynet")
"""First parts of the image_ids of videos, whose files have one of `ENDINGS`."""
PUBLISHED = {"train": "train", "test": "val"}
"""Split of a pack -> the part of a data set that it is made of."""
_TEXTS = ("image_id", "question", "answer", "qtype", "domain", "user", "question_type", "task")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [(name, pa.list_(pa.string())) for name in ("answers", "choices")]
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """Questions of one data set that belong to one split; `rows` has the columns of `SCHEMA`.

    With `clips` they are about videos, and `image_id` names one.
    """

    name: str
    split: str
    rows: pa.Table
    clips: bool = False


class Source:
    """The files in a folder, by name; and who is told what was left out."""

    def __init__(self, folder: str | os.PathLike[str], say: Say) -> None:
        self.folder, self.say = Path(folder).expanduser(), say
        if not self.folder.is_dir():
            raise PackError(f"source '{self.folder}': no such folder")
        self._of: dict[str, Path] = {}
        top = len(self.folder.parts)
        for root, folders, files in os.walk(self.folder, followlinks=True):
            here = Path(root)
            folders[:] = sorted(folders) if len(here.parts) - top < DEPTH else []
            for name in files:
                self._of.setdefault(name, here)

    def find(self, names: Iterable[str]) -> Path | None:
        """The first of these that is there."""
        return next((self._of[name] / name for name in names if name in self._of), None)

    def need(self, what: str, *names: str) -> Path:
        """The first of these.

        Raises:
            PackError: none is there.
        """
        path = self.find(names)
        if path is None:
            listed = " or ".join(f"'{name}'" for name in names)
            raise PackError(f"{what}: {listed} is not in '{self.folder}' or up to {DEPTH} folders below")
        return path

    def splits(self, what: str, *patterns: str) -> Iterator[tuple[str, list[Path]]]:
        """The files of each published part: ("train", files), ("test", files).

        Args:
            what: the data set, for messages.
            patterns: file names with {} for the part, "train" or "val"; all are needed.

        Raises:
            PackError: of neither part is every file there.
        """
        names = {split: [p.format(of) for p in patterns] for split, of in PUBLISHED.items()}
        begun = {split: files for split, files in names.items() if any(self.find([f]) for f in files)}
        for split, files in begun.items():
            yield split, [self.need(what, name) for name in files]
        if not begun:
            self.need(what, *(files[0] for files in names.values()))


def field(record: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """A field of a record that must have this type; texts with single spaces, numbers of up to 63 bits.

    Raises:
        PackError: names `where`, the field, and the fields that are there.
    """
    value = record.get(name)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        what = f"is {type(value).__name__}, not {kind.__name__}" if name in record else "is missing"
        raise PackError(f"{where}: field '{name}' {what}; fields there: {', '.join(map(str, record))[:120]}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise PackError(f"{where}: field '{name}' = {str(value)[:24]}: more than 63 bits")
    return _plain(value, name, where) if isinstance(value, str) else value


def _plain(text: str, name: str, where: str) -> str:
    """A text with single spaces; what is no Unicode (half of a surrogate pair) is refused."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PackError(f"{where}: field '{name}' = {text[:24]!a}: no text in Unicode") from None
    return " ".join(text.split())


def texts(record: Mapping[str, Any], name: str, where: str) -> list[str]:
    """A field that must be a list of texts, none of them empty.

    Raises:
        PackError: it is not.
    """
    found = field(record, name, list, where)
    if not found or not all(isinstance(text, str) and text.strip() for text in found):
        raise PackError(f"{where}: field '{name}' must be a list of texts")
    return [_plain(text, name, where) for text in found]


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows as Arrow columns; a text that a row lacks is "", a list []."""
    plain: dict[str, Any] = {f.name: [] if pa.types.is_list(f.type) else "" for f in schema}
    parts, batch = [], []
    for row in rows:
        batch.append({**plain, **row})
        if len(batch) == BATCH:
            parts.append(pa.Table.from_pylist(batch, schema))
            batch = []
    return pa.concat_tables([*parts, pa.Table.from_pylist(batch, schema)])


def coco(number: int) -> str:
    """The image_id of a picture of COCO, in whichever data set."""
    return f"coco/{number:012d}"


def file_names(image_id: str) -> list[str]:
    """The names that the file of a picture or video may have: COCO's of 2017 and of 2014, one of a video, or
    its own.
    """
    kind, _, name = image_id.partition("/")
    if kind == "coco":
        return [f"{name}.jpg", f"COCO_train2014_{name}.jpg", f"COCO_val2014_{name}.jpg"]
    return [f"{name}{ending}" for ending in ENDINGS] if kind in VIDEOS else [name]
