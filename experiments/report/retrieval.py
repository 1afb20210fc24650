"""Retrieval in tables and report, where a pair has a retrieval head and the data have captions.

R@k is the share of queries whose right one is among the k nearest, the median rank that of all queries. A
device searches with its own held-out clips and captions; intervals draw devices and seeds, as in `own`. Arms
that change nothing that the head reads retrieve as the student was shipped, and have no row of their own.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from cdc_flower.tasks.retrieval import AT, WAYS
from experiments.report import own
from experiments.report.summary import Comparison
from experiments.report.terminal import share

SHIPPED = "as shipped"
HEADS = (*(f"R@{k}" for k in AT), "median rank")


def _of(retrieval: pd.DataFrame, arm: str, last: bool) -> pd.DataFrame:
    """An arm's rows before the first round, or of each run's last evaluation."""
    if last:
        return own.last(retrieval, arm)
    mine = retrieval[retrieval["method"] == arm] if len(retrieval) else retrieval
    return mine if mine.empty else mine[mine["round"] == 0]


def _hits(rows: pd.DataFrame, k: int) -> pd.DataFrame:
    """As `own` reads what devices are worth."""
    return rows.assign(worth=(rows["rank"] <= k).astype(float), items=1)


def figures(rows: pd.DataFrame) -> dict[str, float]:
    """R@k as shares and the median rank, of rows of retrieval.parquet."""
    found: dict[str, float] = {f"R@{k}": float((rows["rank"] <= k).mean()) for k in AT}
    return {**found, "median rank": float(rows["rank"].median())}


def adapted(retrieval: pd.DataFrame, arm: str) -> bool:
    """Whether an arm changed anything that the head reads."""
    mine = _of(retrieval, arm, last=True)
    before = _of(retrieval, arm, last=False)
    return len(mine) > 0 and set(mine["read"]) != set(before["read"])


def told(retrieval: pd.DataFrame, arm: str) -> dict[str, Any]:
    """For summary.json: whether it was adapted, and by way and familiarity the figures before and after."""
    if _of(retrieval, arm, last=True).empty:
        return {}
    by_way: dict[str, Any] = {}
    for way in WAYS:
        both = [_of(retrieval, arm, last) for last in (False, True)]
        both = [rows[rows["way"] == way] for rows in both]
        by_way[way] = {
            kind: {
                name: figures(rows if kind == own.ALL else rows[rows["familiar"] == kind])
                for name, rows in zip(("before", "after"), both, strict=True)
            }
            for kind in own.kinds(both[0])
        }
    return {"adapted": adapted(retrieval, arm), **by_way}


def _named(comparison: Comparison) -> list[tuple[str, pd.DataFrame]]:
    """What has a row: the student as shipped, once where all arms begin alike, and arms that changed it."""
    retrieval, found, known = comparison.retrieval, [], []
    for arm in comparison.index["methods"]:
        before = _of(retrieval, arm, last=False)
        if before.empty:
            continue
        start = before.sort_values(["seed", "device", "way"], kind="stable")["rank"].tolist()
        if start not in known:
            found.append((f"{SHIPPED}, {arm}" if known else SHIPPED, before))
            known.append(start)
        if adapted(retrieval, arm):
            found.append((arm, _of(retrieval, arm, last=True)))
    return found


def columns(comparison: Comparison) -> list[str]:
    """Heads of the table; nothing where no retrieval was measured."""
    heads = ["method", "asked to found", *(f"{head} %" for head in HEADS[:-1]), HEADS[-1]]
    return heads if len(comparison.retrieval) else []


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table as text: an arm and a way a row, shares with half the width of their intervals."""
    found = []
    for name, of in _named(comparison):
        for way in WAYS:
            mine = of[of["way"] == way]
            hits = [_hits(mine, k) for k in AT]
            shares = (share(own.mean(one), *(own.interval(one) or ())) for one in hits)
            found.append((name, way, *shares, f"{mine['rank'].median():.4g}"))
    return found


def devices(comparison: Comparison) -> tuple[list[str], list[tuple[str, ...]]]:
    """Heads and rows of a table of devices, of the first seed: R@1, R@5, R@10 in percent and the median rank
    of clips for their captions, as shipped and of each arm that changed it.
    """
    named = _named(comparison)
    if not named:
        return [], []
    heads = ["device", "user", "familiar", "captions", *(name for name, _ in named)]
    found: dict[tuple[int, str, str, int], list[str]] = {}
    for _, of in named:
        mine = of[(of["way"] == WAYS[0]) & (of["seed"] == of["seed"].min())]
        for device, some in mine.groupby("device"):
            users = " ".join(sorted(set(some["user"])))
            key = int(str(device)), users, str(some["familiar"].iloc[0]), len(some)
            recall = " ".join(f"{100 * (some['rank'] <= k).mean():.0f}" for k in AT)
            found.setdefault(key, []).append(f"{recall} / {some['rank'].median():.4g}")
    return heads, [(*map(str, key), *cells) for key, cells in sorted(found.items())]


def notes(comparison: Comparison) -> list[str]:
    """Which arms retrieve as the student was shipped, once for all."""
    retrieval = comparison.retrieval
    arms = [arm for arm in comparison.index["methods"] if len(_of(retrieval, arm, last=True))]
    same = [arm for arm in arms if not adapted(retrieval, arm)]
    if not same:
        return []
    return [
        f"Retrieval of {', '.join(same)} is that of the student as shipped: nothing that it reads was "
        "adapted (the layer of the answers is not read)."
    ]
