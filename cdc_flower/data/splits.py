"""A, B and C: which rows of a pack models are trained on, which devices meet, and which are reported on.

C is the pack's test split, or (`Split.own`) a third of the pictures of every value of the column that devices
have, so that each device is judged by its own. The train split is cut in two by the values of a column: A is
what tower, teacher and student are trained on, a tenth of it kept aside for validation; B is what devices
meet. No value of the column and no picture of A is in B or C (but for that third, which has the values of B),
and none of A's validation part in what is trained on. A pair's card
records the split (`pair.json`), and every run of that pair takes it from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cdc_flower.config import ConfigError
from cdc_flower.data.packs import Pack
from cdc_flower.data.pictures import Picture
from cdc_flower.data.rows import as_words
from cdc_flower.stages import DataConfig

SHARE = 0.5  # of the column's values in the train split that are in A
VALIDATION = 0.1  # of A's values that nothing is trained on
UNKNOWN = 0.2, 0.25  # as both, where nobody knows what the models were trained on
PICTURE = "picture"  # what people call the column `image_id`
FOLDS = 3  # of the pictures of a user, where C is one of them
A, CHECKED, B, C = PARTS = ("A", "A-validation", "B", "C")


@dataclass(frozen=True)
class Split:
    """How the train rows of a pack are divided.

    Attributes:
        column: whose values are divided.
        share: of the values that are in A.
        validation: of A's values that are for validation.
        twins: names of pictures that are in no part, because B or C (of one of B: C; of one for validation:
            A, too) has the same picture under another name; of clips, the same frames in any order.
        own: C is a third of the pictures of each value in B, and the pack's test split is in no part.
    """

    column: str = "image_id"
    share: float = SHARE
    validation: float = VALIDATION
    twins: tuple[str, ...] = ()
    own: bool = False

    @property
    def name(self) -> str:
        """Of the column, as people call it."""
        return PICTURE if self.column == "image_id" else self.column


@dataclass(frozen=True, eq=False)
class Parts:
    """Which train rows are in which part, each (rows,) bool; rows that would be in two are in none.

    Attributes:
        trained, validation, met: A, A-validation, B.
        held: C, where it is of train rows; None = it is the test split.
        tuned: of `met`, what settings are chosen by where C is of train rows.
    """

    trained: np.ndarray
    validation: np.ndarray
    met: np.ndarray
    held: np.ndarray | None = None
    tuned: np.ndarray | None = None


def column_of(setting: str) -> str:
    """The column that the setting `data.split-by` names."""
    return "image_id" if setting in ("", PICTURE) else setting


def divide(train: pd.DataFrame, test: pd.DataFrame, split: Split) -> Parts:
    """The parts of a pack's train rows.

    Args:
        train: all rows of the train split.
        test: all rows of the test split: its values and pictures are not in A.
        split: see `Split`.

    Raises:
        ConfigError: a column that is missing, or a part without a row.
    """
    for frame in (train, test):
        if split.column not in frame.columns:
            raise ConfigError(
                f"setting 'data.split-by' = '{split.column}': the data has no such column; allowed: "
                + ", ".join([PICTURE, *(name for name in map(str, train.columns) if name != "image_id")])
            )
    values, names = as_words(train[split.column]), train["image_id"].astype(str)
    every = set(values)
    free = sorted(every - set(as_words(test[split.column])), key=lambda v: _hash("aside", v))
    chosen = free[: max(1, round(split.share * len(every)))]
    chosen.sort(key=lambda v: _hash("validation", v))
    checked = set(chosen[: max(1, round(split.validation * len(chosen)))])
    in_a, in_check = values.isin(chosen).to_numpy(), values.isin(checked).to_numpy()
    elsewhere = {*names[~in_a], *test["image_id"].astype(str), *split.twins}
    own = in_a & ~names.isin(elsewhere).to_numpy()
    trained = own & ~in_check
    validation = own & in_check & ~names.isin(set(names[trained])).to_numpy()
    met, held, tuned = ~in_a & ~names.isin(split.twins).to_numpy(), None, None
    if split.own:
        fold = _folds(train, split.column)
        held, tuned, met = ~in_a & (fold == 1), met & (fold == 2), met & (fold != 1)
    parts = Parts(trained, validation, met, held, tuned)
    for mask, what in (
        (trained, "to train on"),
        (validation, "for validation"),
        (parts.met, "for the devices"),
    ):
        if not mask.any():
            raise ConfigError(
                f"setting 'data.split-by' = '{split.name}': no row is left {what}; the column has "
                f"{len(every)} values in the train split, of which {len(every) - len(free)} are in the test "
                f"split, too; allowed: {PICTURE}, or a column with more values of its own"
            )
    return parts


def _folds(train: pd.DataFrame, column: str) -> np.ndarray:
    """Of each row the fold of its picture among those of one value, (rows,) in 0..FOLDS - 1; the first
    picture is in fold 0, so that a value with a single one has something to stream.
    """
    pictures = train.drop_duplicates("image_id")
    order = pictures["image_id"].astype(str).map(lambda name: _hash("own", name))
    ranked = pictures.assign(order=order).sort_values("order").groupby(column).cumcount() % FOLDS
    fold = dict(zip(pictures["image_id"], ranked.reindex(pictures.index), strict=True))
    return train["image_id"].map(fold).to_numpy()


def _hash(what: str, value: str) -> bytes:
    return hashlib.sha256(f"{what} {value}".encode()).digest()


def twins(pack: Pack, parts: Parts) -> tuple[str, ...]:
    """Names of pictures of A that B or C has under another name, of those for validation that are trained on,
    and of those of B that C has; every picture is read.
    """
    names = pack.train["image_id"].astype(str)
    trained, validation, met = (names[mask].unique() for mask in (parts.trained, parts.validation, parts.met))

    def digests(images: Mapping[str, Picture], of: Iterable[str]) -> dict[str, bytes]:
        return {name: _same(images[name]) for name in of}

    devices = digests(pack.train_images, met)
    last = rows_of(pack, parts)[C]["image_id"].astype(str).unique()
    reported = set(digests(images_of(pack, parts, C), last).values())
    theirs = {*devices.values(), *reported}
    mine, aside = digests(pack.train_images, trained), digests(pack.train_images, validation)
    both = theirs | set(mine.values())
    found = [name for name, own in mine.items() if own in theirs]
    found += [name for name, own in devices.items() if own in reported]
    return tuple(sorted([*found, *(name for name, own in aside.items() if own in both)]))


def _same(picture: Picture) -> bytes:
    """Equal for equal pictures, and for clips of the same frames in any order."""
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).digest()
    frames = sorted(hashlib.sha256(frame).digest() for frame in picture)
    return hashlib.sha256(b"".join(frames)).digest()


def record(split: Split, frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What a pair's card says of its split.

    Args:
        split: see `Split`.
        frames: the rows of each of `PARTS`.
    """
    return {
        "column": split.column,
        "share": split.share,
        "validation_share": split.validation,
        "twins": list(split.twins),
        "own": split.own,
        "parts": {name: _about(frame, split.column) for name, frame in frames.items()},
    }


def _about(frame: pd.DataFrame, column: str) -> dict[str, Any]:
    rows = zip(frame["image_id"], frame["question"], frame["answer"], strict=True)
    text = "\x1e".join("\x1f".join(map(str, row)) for row in rows)
    found = {"rows": len(frame), "pictures": int(frame["image_id"].nunique())}
    if column in frame.columns:
        found["values"] = int(frame[column].nunique())
    return {**found, "digest": hashlib.sha256(text.encode()).hexdigest()}


def recorded(card: Mapping[str, Any]) -> Split | None:
    """The split that a card records; None where it has none."""
    said = card.get("split")
    if not said:
        return None
    return Split(
        said["column"], said["share"], said["validation_share"], tuple(said["twins"]), said.get("own", False)
    )


def old(card: Mapping[str, Any], pack: Pack) -> str:
    """Why a pair that was made for a pack cannot be used with it, in a line; "" where it can, and for a pair
    that was made for another pack, or of which nothing is known.
    """
    if not card or (pack.name != card.get("name") and pack.digest != card.get("data")):
        return ""
    if recorded(card) is None:
        return (
            f"the pair of '{pack.name}' was trained on all train rows of its data (its pair.json records no "
            "split): the teacher learnt from what devices stream"
        )
    if pack.digest != card.get("data"):
        return (
            f"the data of '{pack.name}' are not those that its pair was trained on (digests "
            f"{pack.digest[:12]} and {str(card.get('data'))[:12]}): the teacher may have learnt from what "
            "devices stream"
        )
    return ""


def wished(data: DataConfig, pack: Pack, share: float = SHARE, validation: float = VALIDATION) -> Split:
    """The split of a pack that settings ask for; of clips split by user, C has the devices' own."""
    column = column_of(data.split_by)
    return Split(column, share, validation, own=pack.clips and column == data.partition_by)


def parts_of(card: Mapping[str, Any], pack: Pack, data: DataConfig) -> Parts:
    """The parts of a run's train rows: as the card of its pair records them, else (`UNKNOWN`) a fifth for A.

    Args:
        card: of the pair, {} for bare checkpoints.
        pack: of the run.
        data: says by which column to split, where the card does not.

    Raises:
        ConfigError: a pair that was trained on rows that devices meet, or split by another column than is
            wanted, or on other rows than its card records.
    """
    if why := old(card, pack):
        raise ConfigError(f"{why}; allowed: another pair, by `cdc-flower pretrain`")
    split = recorded(card) if pack.digest == card.get("data") else None
    if split is None:
        return divide(pack.train, pack.test, wished(data, pack, *UNKNOWN))
    wanted = data.split_by
    if wanted and column_of(wanted) != split.column:
        raise ConfigError(
            f"setting 'data.split-by' = '{wanted}': the pair of '{pack.name}' was trained with a split by "
            f"'{split.name}'; allowed: that, '', or another pair, by `cdc-flower pretrain`"
        )
    parts = divide(pack.train, pack.test, split)
    for name, frame in rows_of(pack, parts).items():
        if _about(frame, split.column)["digest"] != card["split"]["parts"][name]["digest"]:
            raise ConfigError(
                f"pair of '{pack.name}': part {name} of its split has other rows than its pair.json records; "
                "allowed: another pair, by `cdc-flower pretrain`"
            )
    return parts


def rows_of(pack: Pack, parts: Parts) -> dict[str, pd.DataFrame]:
    """The rows of each of `PARTS`."""
    masks = parts.trained, parts.validation, parts.met
    last = pack.test if parts.held is None else pack.train[parts.held]
    return {**dict(zip(PARTS, (pack.train[m] for m in masks), strict=False)), C: last}


def images_of(pack: Pack, parts: Parts, name: str) -> Mapping[str, Picture]:
    """The pictures of one of `PARTS`, and others."""
    return pack.test_images if name == C and parts.held is None else pack.train_images
