"""What the rows of a pack must be: its columns, their types, and what stands in them.

Whatever is wrong is named by file, row (counted from 0) and column.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import pandas as pd
import pyarrow as pa

from cdc_flower.data.pictures import PackError

TEXT_COLUMNS = ("image_id", "question", "answer", "qtype", "domain", "user")
COLUMNS = ("image", *TEXT_COLUMNS)
"""The columns every pack of pictures has; more are allowed and kept."""
CLIP_COLUMNS = ("frames", "fps", "clip_id", *TEXT_COLUMNS[1:])
"""Those of a pack of clips; `clip_id` is read as `image_id`."""
LISTS = ("answers", "choices")
"""Columns that a pack may have, of lists of texts: all reference answers, and what was offered."""
NOT_EMPTY = ("image_id", "clip_id", "question", "answer")
MOST_FPS = 1000.0
MAX_ANSWER_CHARS, MAX_TEXT_CHARS = 1000, 4096
BATCH = 20_000  # lists that are Python objects at a time


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_texts(kind: pa.DataType) -> bool:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return listed and (_is_text(kind.value_type) or pa.types.is_null(kind.value_type))


def _is_frames(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_bytes(kind.value_type)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


WANTED: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "image": (_is_bytes, "bytes"),
    "frames": (_is_frames, "lists of bytes"),
    "fps": (_is_number, "numbers"),
}
"""Column -> what it must hold, and in words; others hold text."""


def as_list(kind: pa.DataType) -> Any:
    """The pandas type of a list column: as it is in Arrow, a fraction of the memory of Python's lists."""
    return pd.ArrowDtype(kind) if _is_texts(kind) else None


def as_words(column: pd.Series) -> pd.Series:
    """The values of a column as texts, as settings name them; "" where there is none."""
    return column.astype("str").fillna("")


def without_gaps(frame: pd.DataFrame, table: pa.Table) -> pd.DataFrame:
    """A frame whose further columns with nulls are texts, "" in their place, as importers write them; lengths
    and rates, and lists, stay as they are.

    Args:
        table: what the frame was made of; pandas would make fractions of whole numbers beside a null.
    """
    filled = {}
    for name in table.column_names:
        column = table[name]
        if column.null_count and name in frame.columns and not _is_measure(column.type):
            whole = pa.types.is_integer(column.type)
            filled[name] = as_words(column.cast(pa.string()).to_pandas() if whole else frame[name])
    return frame.assign(**filled)


def _is_measure(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)


def check_alike(train: pa.Schema, test: pa.Schema, file: str) -> None:
    """Refuse a further column that has one type in one split and another in the other: what is 1 here and 1.0
    there would be two values, and drift would end between them.

    Args:
        file: that of the test split, for messages.
    """
    for column in train.names:
        if column in test.names and column not in (*COLUMNS, *CLIP_COLUMNS, *LISTS):
            kinds = train.field(column).type, test.field(column).type
            ours, theirs = map(_word, kinds)
            if ours != theirs and "null" not in (ours, theirs):
                raise PackError(
                    f"{file}: column '{column}' holds {kinds[1]}, in the train split {kinds[0]}; "
                    "allowed: one type in both"
                )


def _word(kind: pa.DataType) -> str:
    """A type by what its values look like as texts."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if _is_text(kind) or pa.types.is_string_view(kind):
        return "text"
    words = {"whole numbers": pa.types.is_integer, "times": pa.types.is_temporal}
    return next((word for word, found in words.items() if found(kind)), str(kind))


def _first(values: list[Any], wrong: Callable[[Any], bool]) -> int | None:
    """Position of the first wrong value."""
    return next((row for row, value in enumerate(values) if wrong(value)), None)


def check_schema(schema: pa.Schema, file: str) -> bool:
    """Refuse a file that lacks a column, or has one of another type.

    Args:
        schema: of the file.
        file: whose it is, for messages.

    Returns:
        Whether it has clips in the place of pictures.
    """
    for column in schema.names:
        if schema.names.count(column) > 1:
            raise PackError(f"{file}: column '{column}' is there twice; allowed: once")
    clips = not {"frames", "clip_id"}.isdisjoint(schema.names)
    if clips and not {"image", "image_id"}.isdisjoint(schema.names):
        raise PackError(
            f"{file}: columns of pictures and of clips; allowed: image, image_id, or frames, fps, clip_id"
        )
    needed = CLIP_COLUMNS if clips else COLUMNS
    for column in needed:
        if column not in schema.names:
            raise PackError(
                f"{file}: column '{column}' is missing; a pack needs {', '.join(needed)}; "
                f"found {', '.join(schema.names) or 'none'}"
            )
        kind = schema.field(column).type
        right, wanted = WANTED.get(column, (_is_text, "text"))
        if not right(kind):
            raise PackError(f"{file}: column '{column}' holds {kind}, it must hold {wanted}")
    return clips


def check_text(table: pa.Table, file: str) -> None:
    """Refuse rows without a value, with an empty text where there must be one, or with a long answer.

    Args:
        table: of all columns but pictures or frames.
        file: whose they are, for messages.

    Raises:
        PackError: names the first row that is wrong.
    """
    if not table.num_rows:
        raise PackError(f"{file}: the split is empty; at least one row is needed")
    clips = "clip_id" in table.column_names
    for column in ("clip_id", *TEXT_COLUMNS[1:]) if clips else TEXT_COLUMNS:
        values = table[column].to_pylist()
        row = _first(values, lambda value: value is None)
        if row is not None:
            raise PackError(f"{file}: row {row}, column '{column}': no value")
        row = _first(values, lambda text: not text.strip()) if column in NOT_EMPTY else None
        if row is not None:
            raise PackError(f"{file}: row {row}, column '{column}': empty")
        _check_length(file, column, values, MAX_ANSWER_CHARS if column == "answer" else MAX_TEXT_CHARS)
    rates = table["fps"].to_pylist() if clips else []
    row = _first(rates, lambda fps: fps is None or not 0 < fps <= MOST_FPS)
    if row is not None:
        raise PackError(
            f"{file}: row {row}, column 'fps': {rates[row]}; allowed: above 0, up to {MOST_FPS:.0f}"
        )
    for column in set(LISTS) & set(table.column_names):
        _check_lists(table, file, column)


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
    batches = (table[column].slice(at, BATCH).to_pylist() for at in range(0, table.num_rows, BATCH))
    for row, texts in enumerate(chain.from_iterable(batches)):
        missing = texts is None or (not texts and column == "answers")
        if missing or any(text is None or not text.strip() for text in texts or ()):
            raise PackError(f"{file}: row {row}, column '{column}': no list, or an empty text in it")
        _check_length(file, column, texts or [], row=row)
