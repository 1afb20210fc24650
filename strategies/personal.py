"""Held-out accuracy where devices differ: each on its own test items, under its own adapter.

The mean over all test items says how a method does on a world that nobody lives in: where what is asked, or
what is true, differs from user to user, a device is judged on the items of its own users. Every device is,
up to `devices.JUDGED`, evenly spread; the accuracy of a run is the mean over their items. A method with one
adapter for all answers all items at once.

Adapters answer one after the other. Rows of different adapters in one batch (`models.by_row`) would save
nothing: with 30 items each it takes a third more time than 30 rows of one adapter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import nn

from cdc_flower.data.world import World
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.results import PERSONAL_COLUMNS
from strategies.accuracy import Measured, answers, by, judged

BESIDE = ("familiar", "qtype")
"""Columns by whose values accuracy is told, too, where the data have them."""


def of_devices(world: World, own: Mapping[int, np.ndarray]) -> World:
    """The world whose test items are those of some devices, one device after another; items that several
    devices have are there several times.

    Args:
        world: with all test items.
        own: device -> (items,) positions in `world.test`.
    """
    rows = np.concatenate([np.zeros(0, np.int64), *own.values()])
    return replace(world, test=world.test.iloc[rows].reset_index(drop=True))


def measure_own(
    model: nn.Module, shared: Shared, world: World, own: Mapping[int, np.ndarray], flats: Sequence[np.ndarray]
) -> Measured:
    """What the devices' answers to their own items are worth, in the order of `of_devices`.

    Args:
        model: wears every adapter for a while.
        shared: of the student.
        world: as `of_devices` gives it.
        own: as there.
        flats: of each device its adapter (P,) float32.
    """
    ends = np.cumsum([len(rows) for rows in own.values()]).tolist()
    wearing: dict[bytes, tuple[np.ndarray, list[int]]] = {}
    for flat, begin, end in zip(flats, [0, *ends[:-1]], ends, strict=True):
        _, rows = wearing.setdefault(hashlib.sha256(flat.tobytes()).digest(), (flat, []))
        rows.extend(range(begin, end))
    said = [""] * len(world.test)
    for flat, rows in wearing.values():
        some = replace(world, test=world.test.iloc[rows].reset_index(drop=True))
        with adapters.wearing(model, flat):
            for row, text in zip(rows, answers(model, shared, some), strict=True):
                said[row] = text
    found = judged(said, world)
    for column in BESIDE:
        if column in world.test:
            found.beside.update(by(world, column, found.worth))
    return found


def table(
    world: World, own: Mapping[int, np.ndarray], worth: Sequence[float] | np.ndarray, round: int, user: str
) -> pd.DataFrame:
    """Rows of personal.parquet: of each device, domain and familiarity the worth of its answers, added up.

    Args:
        world: as `of_devices` gives it.
        own: as there.
        worth: (items,) of each answer.
        round: of the evaluation.
        user: the column whose values say whose items they are, "" = none.
    """
    test, sizes = world.test, [len(rows) for rows in own.values()]
    device = np.repeat(np.fromiter(own, np.int64, len(own)), sizes)
    nobody = pd.Series([""] * len(test))
    whose = test[user].astype(str) if user in test else nobody
    users = {d: " ".join(sorted(set(names))) for d, names in whose.groupby(device)}
    frame = pd.DataFrame(
        {
            "round": round,
            "device": device,
            "user": [users[d] for d in device.tolist()],
            "domain": test["drift_domain"].astype(str),
            "familiar": test["familiar"].astype(str) if "familiar" in test else nobody,
            "worth": np.asarray(worth, float),
            "items": 1,
        }
    )
    by_all = ["round", "device", "user", "domain", "familiar"]
    return frame.groupby(by_all, as_index=False).sum().astype(dict(PERSONAL_COLUMNS))
