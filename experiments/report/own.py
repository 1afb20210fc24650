"""Accuracy of devices on their own held-out items, where `data.tested` is own: seen devices and unseen ones.

Items of one device are alike, so what is drawn for the 95 % intervals is devices: seeds are drawn with
replacement and, apart from them, users, the same draw for all seeds, because seeds share their users and not
which device each is. Where seeds have different users, or nobody is named, devices are drawn within seeds. Of
one seed an interval holds devices alone. Differences between arms are taken draw by draw: arms of equal seeds
meet the same users, and a user whose items are hard is hard for all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.report.amounts import percent
from experiments.report.summary import Comparison
from experiments.report.terminal import share

DRAWS = 2000
ALL = "all"
KEY = ["seed", "device", "user", "domain", "familiar", "items"]  # of rows that can be compared
Interval = tuple[float, float]


def last(personal: pd.DataFrame, arm: str, familiar: str = ALL) -> pd.DataFrame:
    """An arm's rows of each run's last evaluation, of devices of one familiarity.

    Args:
        personal: personal.parquet of all runs, with method and seed; or another table by method, seed and
            round.
        arm: by name.
        familiar: "seen", "unseen" or whatever the data say; `ALL` = every device.
    """
    mine = personal[personal["method"] == arm] if len(personal) else personal
    if mine.empty:
        return mine
    mine = mine[mine["round"] == mine.groupby("seed")["round"].transform("max")]
    return mine if familiar == ALL else mine[mine["familiar"] == familiar]


def kinds(personal: pd.DataFrame) -> list[str]:
    """The familiarities that there are, and `ALL`; nothing where no device was measured on its own items."""
    return [*sorted(set(personal["familiar"]) - {""}), ALL] if len(personal) else []


def mean(rows: pd.DataFrame) -> float | None:
    """Worth of an answer, over all items of all seeds; None without items."""
    return float(rows["worth"].sum() / rows["items"].sum()) if len(rows) else None


def _units(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, bool]:
    """Worth and items (seeds, units), units being what is drawn, and whether seeds share them."""
    names = rows["user"].astype(str)
    per_seed = names.groupby(rows["seed"]).agg(lambda of: tuple(sorted(set(of))))
    alike = "" not in set(names) and per_seed.nunique() == 1
    by = rows.assign(unit=names if alike else rows["device"].astype(str))
    worth, items = (
        by.pivot_table(index="seed", columns="unit", values=v, aggfunc="sum", fill_value=0).to_numpy(float)
        for v in ("worth", "items")
    )
    return worth, items, alike


def drawn(rows: pd.DataFrame, draws: int = DRAWS) -> np.ndarray:
    """(draws,) means over seeds and devices that were drawn with replacement; equal seeds and users are drawn
    alike whatever the rows hold.
    """
    worth, items, alike = _units(rows)
    (seeds, units), rng = worth.shape, np.random.default_rng(0)
    times = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    fair = np.full(units, 1 / units)
    if alike:
        weight = times[:, :, None] * rng.multinomial(units, fair, size=draws)[:, None, :]
    else:
        weight = rng.multinomial(times * units, fair)
    count = (weight * items).sum((1, 2))
    return (weight * worth).sum((1, 2)) / np.where(count, count, np.nan)


def interval(rows: pd.DataFrame) -> Interval | None:
    """95 % interval of the mean; None without rows, and of one device in one seed, which is always drawn."""
    return _ends(drawn(rows)) if _several(rows) else None


def _several(rows: pd.DataFrame) -> bool:
    return len(rows) > 0 and _units(rows)[0].size > 1


def difference(mine: pd.DataFrame, theirs: pd.DataFrame) -> tuple[float, Interval | None] | None:
    """How far one arm is ahead of another, with its 95 % interval, where `interval` has one; None where seeds
    or users differ.
    """
    if mine.empty or not _equal(mine, theirs, KEY):
        return None
    apart = (mean(mine) or 0.0) - (mean(theirs) or 0.0)
    return apart, _ends(drawn(mine) - drawn(theirs)) if _several(mine) else None


def alike(mine: pd.DataFrame, theirs: pd.DataFrame) -> bool:
    """Whether two arms answered the same items equally well."""
    return _equal(mine, theirs, [*KEY, "worth"])


def _equal(mine: pd.DataFrame, theirs: pd.DataFrame, columns: list[str]) -> bool:
    one, other = (frame[columns].sort_values(columns[:5]).reset_index(drop=True) for frame in (mine, theirs))
    return one.equals(other)


def _ends(values: np.ndarray) -> Interval:
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def figures(personal: pd.DataFrame, arm: str) -> dict[str, dict[str, Any]]:
    """For summary.json: of each familiarity accuracy, interval and number of devices of a seed, at most."""
    found = {}
    for familiar in kinds(personal):
        rows = last(personal, arm, familiar)
        if len(rows):
            ends = interval(rows)
            found[familiar] = {
                "accuracy": mean(rows),
                "ci95": list(ends) if ends else None,
                "devices": int(rows.groupby("seed")["device"].nunique().max()),
            }
    return found


def columns(comparison: Comparison) -> list[str]:
    """Heads of the table; nothing where no device was measured on its own items."""
    heads = [f"{kind} devices %" for kind in kinds(comparison.personal)]
    return ["method", *heads] if heads else []


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table as text: an arm a row, its accuracy with half the width of its interval."""
    personal, found = comparison.personal, []
    for arm in comparison.index["methods"]:
        mine = [last(personal, arm, kind) for kind in kinds(personal)]
        if any(len(of) for of in mine):
            found.append((arm, *(share(mean(of), *(interval(of) or ())) for of in mine)))
    return found


def notes(comparison: Comparison, base: str) -> list[str]:
    """How far every other arm is ahead of `base` on devices of each familiarity."""
    personal, lines = comparison.personal, []
    for arm in comparison.index["methods"]:
        parts = []
        for kind in kinds(personal) if arm != base else ():
            found = difference(last(personal, arm, kind), last(personal, base, kind))
            if found is not None:
                apart, ends = found
                low_high = ", ".join(percent(end, sign=True) for end in ends or ())
                parts.append(f"{kind} {percent(apart, sign=True)}{f' [{low_high}]' if ends else ''}")
        if parts:
            lines.append(f"{arm} against {base} on devices' own items, points: {', '.join(parts)}.")
    return lines
