"""What a run would meet of a pack: what drifts, how often devices meet a row again, and which shares will be
uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd

from cdc_flower.config import Config, ConfigError
from cdc_flower.data import splits
from cdc_flower.data.domains import SOURCE, domains
from cdc_flower.data.frames import Clips
from cdc_flower.data.packs import GENERATED, Pack, check_folder, questions, shards
from cdc_flower.data.partition import partition
from cdc_flower.data.pictures import layout
from cdc_flower.data.rows import as_words
from cdc_flower.data.schedule import Streams, repeats
from cdc_flower.stages import DataConfig

FEW = 100
"""Items below which a share is called uncertain: ±10 points at the most."""
DEVICES = 64  # whose streams are made


@dataclass(frozen=True)
class Axis:
    """One way in which samples may drift.

    Attributes:
        name: object, question or style.
        setting: that says which values the student knows.
        column: that holds the values.
        said: the setting; "" = all values are known.
        values: one row a value: `value`, `known` (bool), `train`, `test` (rows), most frequent first; empty
            where the pack has no such column.
    """

    name: str
    setting: str
    column: str
    said: str
    values: pd.DataFrame


def of_clips(data: DataConfig) -> bool:
    """Whether the samples of a pack are clips; no row is read.

    Raises:
        PackError: a folder that is no pack.
    """
    if data.pack in GENERATED:
        return data.pack == "clips"
    check_folder(data)
    file = shards(Path(data.pack).expanduser(), "train")[0]
    return Clips.column in layout(file, str(file))[0].names


def axes(pack: Pack, config: Config) -> list[Axis]:
    """The axes of drift, those with a setting and those that could have one.

    Raises:
        ConfigError: a setting names a value or column that is not there.
    """
    data = config.data
    bare = replace(data, known_objects="", known_questions="", known_styles="")
    found = []
    for name, key, column in (
        ("object", "known_objects", data.object_column),
        ("question", "known_questions", "qtype"),
        ("style", "known_styles", data.style_column),
    ):
        said, values = getattr(data, key), pd.DataFrame(columns=["value", "known", "train", "test"])
        if column in pack.train.columns:
            own = replace(bare, **{key: said})
            parts = []
            for split, frame in (("train", pack.train), ("test", pack.test)):
                known = domains(frame, own, pack.train) == SOURCE
                parts.append(pd.DataFrame({"value": as_words(frame[column]), "known": known, "split": split}))
            rows = pd.concat(parts)
            counts = rows.groupby(["value", "known", "split"]).size().unstack(fill_value=0).reset_index()
            values = counts.reindex(columns=["value", "known", "train", "test"], fill_value=0)
            values = values.sort_values(["known", "train", "value"], ascending=[False, False, True])
        elif said:
            domains(pack.train, replace(bare, **{key: said}), pack.train)  # refuses it
        found.append(Axis(name, f"data.{key.replace('_', '-')}", column, said, values))
    return found


def uncertainty(items: int) -> float:
    """Half of a 95 % interval of a share of so many items, at its widest [points]."""
    return min(100.0, 100 * 1.96 * sqrt(0.25 / items))


def warnings(pack: Pack, config: Config) -> list[str]:
    """What a run on this pack should know beforehand, a sentence each."""
    data, lines = config.data, []
    train, test = domains(pack.train, data), domains(pack.test, data, pack.train)
    if not (data.known_objects or data.known_questions or data.known_styles):
        lines.append(
            "Nothing drifts: all values are known to the student. data.known-objects, data.known-questions "
            "or data.known-styles name those that are (values or a share, as 50%); or drift.axes=none."
        )
    elif gone := [a for a in config.axes if not (train == a).any() or not (test == a).any()]:
        lines.append(
            f"drift.axes = {','.join(config.axes)}, but train or test has no row of {', '.join(gone)}: "
            "a run is refused."
        )
    try:
        parts = _parts(pack, data)
        lines += _few(pack, config, test if parts.held is None else train[parts.held])
        met = _met(pack, config, train, parts.met)
    except ConfigError as err:
        return [*lines, f"No run: {err}."]
    if met["repeating_devices"]:
        lines.append(
            f"The stream repeats: {met['repeating_devices']:g} of {met['devices']:g} devices meet rows "
            f"again; each is asked {met['questions']:g} questions about {met['distinct_rows']:g} rows "
            "(run.rounds, run.samples-per-round and run.devices say how many)."
        )
    return lines


def _parts(pack: Pack, data: DataConfig) -> splits.Parts:
    """Which rows devices meet, and which are reported on where these are train rows."""
    none, every = np.zeros(len(pack.train), bool), np.ones(len(pack.train), bool)
    if data.pack in GENERATED:
        return splits.Parts(none, none, every)
    column = splits.column_of(data.split_by)
    if column not in pack.train.columns:
        raise ConfigError(f"setting 'data.split-by' = '{data.split_by}': the data has no such column")
    own = pack.clips and column == data.partition_by
    return splits.divide(pack.train, pack.test, splits.Split(column, own=own))


def _few(pack: Pack, config: Config, test: np.ndarray) -> list[str]:
    """The domains with few test items, in one sentence."""
    most = 0 if pack.clips else config.data.items_per_domain
    counts = {domain: int((test == domain).sum()) for domain in (SOURCE, *config.axes)}
    few = {domain: min(n, most or n) for domain, n in counts.items() if 0 < min(n, most or n) < FEW}
    said = ", ".join(f"{domain} has {n} (±{uncertainty(n):.0f} points, 95 %)" for domain, n in few.items())
    return [f"Few test items: {said}."] if few else []


def _met(pack: Pack, config: Config, domain: np.ndarray, met: np.ndarray) -> dict[str, float]:
    """How often devices meet a row again."""
    asked = pack.train.index.isin(questions(pack.train, pack.clips).index)
    met = met & asked & np.isin(domain, (SOURCE, *config.axes))
    rows, own = pack.train[met].reset_index(drop=True), domain[met]
    parts = partition(rows, config.data, config.run.devices, config.run.seed)
    streams = Streams(own, parts, config)
    devices = min(len(streams), DEVICES)
    found = np.stack([np.stack([np.asarray(r) for r in streams[device]]) for device in range(devices)])
    return {**repeats(found), "devices": devices}
