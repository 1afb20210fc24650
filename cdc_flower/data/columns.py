"""Fields of other people's records become columns of a pack: those that every pack has by a mapping, further
ones under their own names.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cdc_flower.border import first_line
from cdc_flower.data.pictures import PackError
from cdc_flower.data.rows import COLUMNS, LISTS, NOT_EMPTY

NEEDED = ("image", "question", "answer")
"""Pack columns that a source must have."""
OPTIONAL = ("qtype", "domain", "user", "split")
"""Columns that default to ""; `split` is read from files only and is not part of a pack."""
OURS = {*COLUMNS, "split", "file", "frames", "fps", "clip_id"}
"""Columns that have a meaning: a field of this name is read by a mapping alone."""
MOST = 64  # further fields
TABLES = (".csv", ".jsonl")
"""Endings of files that `lines_of` reads."""


def fields_of(mapping: Mapping[str, str] | None, needed: Sequence[str] = NEEDED) -> dict[str, str]:
    """Column -> field for all needed and optional columns and all that are mapped; unmapped: its own name."""
    named = dict(mapping or {})
    for column, field in named.items():
        if not isinstance(field, str) or not field:
            raise PackError(f"mapping: column '{column}' must name a field of the source, not {field!r}")
    return {column: column for column in (*needed, *OPTIONAL)} | named


def mapped(
    records: Iterator[tuple[str, dict[str, Any]]], mapping: Mapping[str, str] | None, source: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records as they come.

    Raises:
        PackError: behind the last one, where a field that the mapping names was in none of them.
    """
    seen = dict[str, None]()
    for where, record in records:
        seen |= dict.fromkeys(record)
        yield where, record
    if seen:
        check_mapped(mapping, seen, source)


def check_mapped(mapping: Mapping[str, str] | None, fields: Iterable[str], source: str) -> None:
    """Refuse a mapping that names a field that there is not.

    Raises:
        PackError: names it, and the fields that there are.
    """
    there = [str(field) for field in fields]
    for column, field in (mapping or {}).items():
        if field not in there:
            raise PackError(
                f"{source}: no field '{field}' (for column '{column}'); allowed: {', '.join(there)}"
            )


def only_table(folder: Path) -> Path:
    """The one table of a folder.

    Raises:
        PackError: there is none, or there are several.
    """
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in TABLES)
    if len(found) != 1:
        raise PackError(
            f"{folder}: {len(found)} files named *.csv or *.jsonl "
            f"({', '.join(f.name for f in found[:5]) or 'none'}); allowed: exactly one, or name it"
        )
    return found[0]


def resolved(folder: Path, name: str, where: str, what: str) -> Path:
    """Where a file is that a record names, seen from a folder; it may be outside of it, or absent.

    Raises:
        PackError: what no file can be called.
    """
    try:
        return (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):  # a null character, a lone surrogate, a ring of links
        raise PackError(f"{where}: {what} {name!r} is no path; allowed: paths inside the folder") from None


def row_of(record: Mapping[str, Any], fields: Mapping[str, str], where: str) -> dict[str, Any]:
    """The text columns of one source record: those in `fields`, without picture or file, and further ones.

    A list of answers is also the row's `answers`. Of further fields texts, numbers and truth values are kept,
    and lists of texts in the columns of `LISTS`. A number that is not finite counts as missing.

    Raises:
        PackError: a column without its field, or of another type, or a text that no file can hold.
    """
    row: dict[str, Any] = {}
    for column, field in fields.items():
        value = record.get(field)
        if column in ("image", "file"):
            continue
        if not _is_nothing(value):
            row[column] = _cell(value, where, column)
            if column == "answer" and isinstance(value, list | tuple):
                row.setdefault("answers", _cell(value, where, "answers"))
        elif column in OPTIONAL:
            row[column] = ""
        else:
            raise PackError(
                f"{where}: field '{field}' (column '{column}') is missing; found: "
                f"{', '.join(map(str, record)) or 'nothing'}; allowed: another one by --map {column}=FIELD"
            )
    taken = {*fields, *fields.values()}
    for name, value in record.items():
        if isinstance(name, str) and name not in taken and name not in OURS and is_kept(name, value):
            row[name] = _further(name, value)
    for column, value in row.items():
        _check_characters([value] if isinstance(value, str) else value, where, column)
    return row


def _check_characters(texts: Iterable[str], where: str, column: str) -> None:
    """Refuse half of a pair of surrogates, which JSON can write and UTF-8 cannot."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as err:
            character = text[err.start].encode("unicode_escape").decode()
            raise PackError(
                f"{where}, column '{column}': {character} at character {err.start}; "
                "allowed: what UTF-8 can hold"
            ) from None


def is_kept(name: str, value: Any) -> bool:
    """Whether a further field with such a value becomes a column."""
    if name in LISTS:
        return isinstance(value, list | tuple) and all(isinstance(one, str) and one.strip() for one in value)
    return name.isprintable() and isinstance(value, str | int | float | bool) and not _is_nothing(value)


def _is_nothing(value: Any) -> bool:
    """Whether a field says nothing: null, or a number that is none, as tables write one that is missing."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _further(name: str, value: Any) -> Any:
    if name in LISTS:
        return [one.strip() for one in value]
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


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


def filled(rows: list[dict[str, Any]], source: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rows, each with all columns that one of them has; what a row lacks is "" or a list.

    Raises:
        PackError: no rows, or too many further columns.
    """
    if not rows:
        raise PackError(f"{source}: no rows")
    columns = dict.fromkeys(name for row in rows for name in row)
    further = [name for name in columns if name not in OURS]
    if len(further) > MOST:
        raise PackError(f"{source}: {len(further)} further fields; allowed: up to {MOST}")
    if further:
        say(f"{source}: further columns: {', '.join(further)}")
    empty: dict[str, Any] = {name: [] if name in LISTS else "" for name in columns}
    if "answers" in columns:
        return [{**empty, **row, "answers": row.get("answers") or [row["answer"]]} for row in rows]
    return [{**empty, **row} for row in rows]


def frame_of(rows: Iterator[dict[str, Any]], source: str, say: Callable[[str], None]) -> pd.DataFrame:
    """Rows as a table, see `filled`."""
    return pd.DataFrame(filled(list(rows), source, say))


def lines_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a JSON lines file, or of a CSV file with a head: (where, record).

    Raises:
        PackError: names the file and the line that cannot be read.
    """
    yield from _csv(path) if path.suffix.lower() == ".csv" else _json_lines(path)


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as err:
                raise PackError(f"{where}: not JSON: {first_line(err)}") from None
            if not isinstance(record, dict):
                raise PackError(f"{where}: {type(record).__name__} found; allowed: one JSON object a line")
            yield where, record


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, strict=True)
            names = rows.fieldnames or ()
            if twice := [name for name, times in Counter(names).items() if times > 1]:
                raise PackError(f"{path}: column '{twice[0]}' is there twice; allowed: once")
            for record in rows:
                where = f"{path}: line {rows.line_num}"
                if None in record or None in record.values():
                    raise PackError(f"{where}: not as many cells as the head has; allowed: {len(names)}")
                yield where, record
    except (csv.Error, UnicodeDecodeError) as err:
        raise PackError(f"{path}: no CSV file in UTF-8: {first_line(err)}") from None
