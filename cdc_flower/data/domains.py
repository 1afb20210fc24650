"""What counts as drift: the domain of a row.

A sample is drifted when something in it was never shown to the student while it was trained: the object, the
kind of question, or the style of the picture (the two shifts of arXiv 2312.16279, VQAv2 -> A-OKVQA and COCO
-> nocaps, are the question and the object axis).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cdc_flower.config import ConfigError
from cdc_flower.data.rows import as_words
from cdc_flower.stages import DataConfig

SOURCE = "source"
DOMAINS = (SOURCE, "object", "question", "style", "mixed")


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _known(
    frame: pd.DataFrame, reference: pd.DataFrame, column: str, column_key: str, key: str, spec: str
) -> np.ndarray | None:
    """Which rows of `frame` have a value of `column` that the student knows, (rows,) bool; None = all."""
    if not spec.strip():
        return None
    for part in (frame, reference):
        if column not in part.columns:
            raise ConfigError(
                f"setting '{key}' = {spec!r} needs column '{column}' (setting "
                f"'{column_key}'), which the data does not have; allowed columns: "
                f"{', '.join(map(str, part.columns))}"
            )
    values = as_words(reference[column]).unique().tolist()
    if not any(values):
        raise ConfigError(
            f"setting '{key}' = {spec!r}: column '{column}' (setting '{column_key}') is empty in this data; "
            f"allowed: no such setting, or a column with values: {_with_values(reference)}"
        )
    if spec.strip().endswith("%"):
        try:
            share = float(spec.strip()[:-1]) / 100
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise ConfigError(
                f"setting '{key}' = {spec!r}: allowed: a share from above 0% to 100%, such as '50%'"
            )
        count = max(1, round(share * len(values)))
        limit = sorted(map(_hash, values))[count - 1]
        return as_words(frame[column]).map(lambda value: _hash(value) <= limit).to_numpy(dtype=bool)
    known = [value.strip() for value in spec.split(",") if value.strip()]
    for value in known:
        if value not in values:
            some = sorted(values)
            listed = ", ".join(some[:20]) + (f", ... ({len(some)} in all)" if len(some) > 20 else "")
            raise ConfigError(
                f"setting '{key}' = {spec!r}: column '{column}' has no value '{value}'; "
                f"allowed: {listed}, or a share such as '50%'"
            )
    return as_words(frame[column]).isin(known).to_numpy(dtype=bool)


def _with_values(frame: pd.DataFrame) -> str:
    """The columns that could say what is known: those with more than one text."""
    texts = [c for c in frame.columns if frame[c].map(type).eq(str).all() and frame[c].nunique() > 1]
    return (
        ", ".join(c for c in texts if c not in ("image_id", "clip_id", "question"))
        or "none has more than one"
    )


def domains(frame: pd.DataFrame, config: DataConfig, reference: pd.DataFrame | None = None) -> np.ndarray:
    """The domain of every row: what in it the student never saw.

    Args:
        frame: rows of a pack.
        config: the `known_*` settings and the columns they speak of. A share ("50%") takes the values whose
            sha256 is lowest, so it does not depend on the order of the rows.
        reference: the rows whose values may be named and are counted for a share; `frame` itself by default.
            Pass the train rows with a test frame: its objects may be held out, and both splits must share one
            boundary.

    Returns:
        (rows,) str: "source", "object", "question", "style", or "mixed" where more than one is unknown.

    Raises:
        ConfigError: a column that is missing, a value that does not occur, or a share that is none.
    """
    reference = frame if reference is None else reference
    axes = {
        "object": (config.object_column, "data.object-column", "data.known-objects", config.known_objects),
        "question": ("qtype", "data.known-questions", "data.known-questions", config.known_questions),
        "style": (config.style_column, "data.style-column", "data.known-styles", config.known_styles),
    }
    names = np.full(len(frame), SOURCE, dtype=object)
    unknown = np.zeros(len(frame), dtype=np.int64)
    for axis, (column, column_key, key, spec) in axes.items():
        known = _known(frame, reference, column, column_key, key, spec)
        if known is not None:
            names[~known] = axis
            unknown += ~known
    names[unknown > 1] = "mixed"
    return names.astype(str)


def check_domains(
    train: np.ndarray, test: np.ndarray, axes: Sequence[str], items: str = "test split"
) -> None:
    """Refuse a run with an empty domain.

    Args:
        train: (rows,) domains of the train rows.
        test: the same for the test rows.
        axes: the drift axes of the run; the source is needed as well.
        items: what `test` is, in words.

    Raises:
        ConfigError: names the domain, the split, and how many rows the domains that exist have.
    """
    for split, rows in (("train split", train), (items, test)):
        found = {name: int(np.sum(rows == name)) for name in DOMAINS}
        for name in (SOURCE, *axes):
            if not found[name]:
                there = ", ".join(f"{n} {count}" for n, count in found.items() if count)
                hint = (
                    "everything is unknown to the student"
                    if name == SOURCE
                    else "allowed in setting 'drift.axes': the domains that exist, or none"
                )
                raise ConfigError(
                    f"domain '{name}' is empty in the {split}; rows there: {there}; "
                    f"{hint} (settings known-objects, known-questions and known-styles say "
                    "what is drifted)"
                )
