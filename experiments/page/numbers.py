"""From cells to the figures of the page: means, intervals over seeds, and a bootstrap over items, too.

Two intervals of 95 % stand beside drift. The first is Student's t over seeds, as everywhere in this project;
it holds what another stream would change. The second is a bootstrap: seeds are drawn with replacement, then
the held-out items of each domain, the same draw for all seeds, because all seeds answer the same items; where
there are several pairs these are drawn first, and seeds within them. It holds what other questions would
change, too. Of five seeds it underestimates what seeds do, of one it holds items alone. Cells of packs know
their items in groups (`experiments.page.cells`); there groups are drawn in the place of items, which
estimates the same spread.
Differences between arms are taken seed by seed and item by item before anything is drawn.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.page import cells as saved
from experiments.page.plan import TEACHER, Cell, Part, Plan
from experiments.report.summary import LEAST_GAP, drift_mean, interval

DRAWS = 2000
LEAST = 3  # runs that have an interval over seeds
SOURCE = "source"
COUNTS = ("uplink_bytes", "downlink_bytes", "device_gflops", "cloud_gflops")

Interval = tuple[float, float]
Figures = Mapping[Path, Mapping[str, Any]]
"""Path of a cell -> its figures."""


@dataclass(frozen=True)
class Row:
    """An arm on some data: means over its runs, those of a pair first, so that each pair counts alike.

    Attributes:
        label: of the table.
        pair: its name, where a row is of one; "" else.
        by_domain: accuracy of each drifted domain, whose mean `acc_drift` is.
        drift_ci: over seeds; None for fewer than `LEAST`.
        drift_items_ci: over pairs, seeds and items.
        forgetting: accuracy on the source before the first round minus that after the last, a signed change.
        gap_closed: between the student as shipped and the teacher; None without both, or where the teacher
            is no better.
        to: the arm that differences are to; None where it is this one or not there.
        difference: on drift, by seed; with its intervals as above.
        counts: of `COUNTS`; None where a run did not count it.
        runs: of each pair that has some, in the order of their names.
        items: held-out answers of a run.
    """

    label: str
    pair: str
    labels: bool
    device_backprop: bool
    acc_source: float
    acc_drift: float
    by_domain: Mapping[str, float]
    drift_ci: Interval | None
    drift_items_ci: Interval | None
    forgetting: float
    forgetting_ci: Interval | None
    gap_closed: float | None
    to: str | None
    difference: float | None
    difference_ci: Interval | None
    difference_items_ci: Interval | None
    counts: Mapping[str, float | None]
    runs: tuple[int, ...]
    seeds: int
    items: int


@dataclass(frozen=True)
class Teacher:
    """What the teacher's answers are worth: accuracy on the source and over drifted domains."""

    source: float
    on_test: float
    on_stream: float | None


def load(folder: Path, plan: Plan) -> dict[Path, dict[str, Any]]:
    """The figures of all cells of a page that are there.

    Raises:
        ConfigError: a file that is none of ours.
    """
    found = {}
    for cell in plan.cells():
        if (one := saved.read(folder, cell)) is not None:
            found[cell.path] = one
    return found


def _made(part: Part, data: str, figures: Figures, arm: str, pair: str | None) -> dict[tuple[str, int], Any]:
    """The figures of an arm's cells that are made, by pair and seed; pair None = all pairs of the data."""
    return {
        (name, seed): figures[path]
        for name in (part.pairs[data] if pair is None else (pair,))
        for seed in range(part.seeds)
        if (path := Cell(data, name, arm, seed).path) in figures
    }


def teacher(part: Part, data: str, figures: Figures, pair: str | None = None) -> Teacher | None:
    """The teacher, mean over seeds and pairs as in `mean`; None where its cell is not made.

    Args:
        pair: of this pair alone; None = over all pairs of the part.
    """
    every = _made(part, data, figures, TEACHER, pair)
    if not every:
        return None
    stream = {key: value for key, one in every.items() if (value := drift_mean(one["on_stream"])) is not None}
    return Teacher(
        mean(every, [one["on_test"].get(SOURCE, float("nan")) for one in every.values()]),
        mean(every, [drift_mean(one["on_test"]) or 0.0 for one in every.values()]),
        mean(stream, list(stream.values())) if stream else None,
    )


def rows(part: Part, data: str, figures: Figures, base: str = "cdc", pair: str | None = None) -> list[Row]:
    """The rows of a table, in the order of the part; an arm without a cell has none.

    Args:
        part: of the page.
        data: of the part.
        figures: all that there are.
        base: the arm that others are compared with, within their variant.
        pair: of this pair alone; None = over all pairs of the part.
    """
    runs = {arm: _made(part, data, figures, arm, pair) for arm in part.arms}
    of_teacher = teacher(part, data, figures, pair)
    found = []
    for arm, mine in runs.items():
        if mine:
            variant = part.variants[arm]
            other = next(
                (a for a in part.arms if part.plain[a] == base and part.variants[a] == variant), None
            )
            lower = next(
                (of for a, of in runs.items() if of and part.variants[a] == variant and not _adapts(of)), None
            )
            to = None if other in (None, arm) or not runs[other] else other
            found.append(_row(arm, pair or "", mine, to, runs[to] if to else {}, lower, of_teacher))
    return found


def _adapts(runs: Mapping[Any, Mapping[str, Any]]) -> bool:
    return all(one["adapts"] for one in runs.values())


def _row(
    arm: str,
    pair: str,
    mine: Mapping[tuple[str, int], Mapping[str, Any]],
    to: str | None,
    theirs: Mapping[tuple[str, int], Mapping[str, Any]],
    lower: Mapping[tuple[str, int], Mapping[str, Any]] | None,
    of_teacher: Teacher | None,
) -> Row:
    every = list(mine.values())
    drift = [_drift(one) for one in every]
    lost = [_lost(one) for one in every]
    worth = {key: saved.unpacked(one["items"]) for key, one in mine.items()}
    both = [key for key in mine if key in theirs]
    by_seed = [_drift(mine[key]) - _drift(theirs[key]) for key in both]
    apart = {key: _minus(worth[key], saved.unpacked(theirs[key]["items"])) for key in both}
    gap = None
    if of_teacher is not None and lower:
        shipped = mean(lower, [_drift(one) for one in lower.values()])
        width = of_teacher.on_test - shipped
        gap = (mean(mine, drift) - shipped) / width if width > LEAST_GAP else None
    return Row(
        label=arm,
        pair=pair,
        labels=every[0]["labels"],
        device_backprop=every[0]["device_backprop"],
        acc_source=mean(mine, [_last(one, SOURCE) for one in every]),
        acc_drift=mean(mine, drift),
        by_domain={
            domain: mean(mine, [_last(one, domain) for one in every])
            for domain in every[0]["accuracy"]
            if domain != SOURCE
        },
        drift_ci=over(mine, drift),
        drift_items_ci=bootstrap(worth),
        forgetting=mean(mine, lost),
        forgetting_ci=over(mine, lost),
        gap_closed=gap,
        to=to if both else None,
        difference=mean(both, by_seed) if both else None,
        difference_ci=over(both, by_seed),
        difference_items_ci=bootstrap({k: v for k, v in apart.items() if v is not None}) if both else None,
        counts={name: _counted(mine, name) for name in COUNTS},
        runs=tuple(Counter(name for name, _ in sorted(mine)).values()),
        seeds=len({seed for _, seed in mine}),
        items=saved.count(every[0]["items"]),
    )


def over(runs: Iterable[tuple[str, int]], values: Sequence[float]) -> Interval | None:
    """95 % interval by Student's t over the seeds of a pair; over the means of pairs where there are several,
    because runs of one pair are alike.

    Args:
        runs: (pair, seed) of each value.
        values: in that order.

    Returns:
        None of fewer than `LEAST`: with one degree of freedom its width is what chance made of two values.
    """
    of = _by_pair(runs, values)
    alike = list(values) if len(of) < 2 else [statistics.fmean(some) for some in of.values()]
    return interval(alike) if len(alike) >= LEAST else None


def across(
    part: Part, data: str, figures: Figures, mine: tuple[str, str], theirs: tuple[str, str]
) -> tuple[float, Interval | None] | None:
    """How far an arm with one pair is from an arm with another on drift, mean by seed with its interval over
    seeds; None without a seed that both have.

    Args:
        mine, theirs: (arm, pair).
    """
    runs, others = (
        {seed: _drift(one) for (_, seed), one in _made(part, data, figures, arm, pair).items()}
        for arm, pair in (mine, theirs)
    )
    by_seed = {("", seed): runs[seed] - others[seed] for seed in runs if seed in others}
    if not by_seed:
        return None
    values = list(by_seed.values())
    return statistics.fmean(values), over(by_seed, values)


def mean(runs: Iterable[tuple[str, int]], values: Sequence[float]) -> float:
    """The mean of the means of pairs; arguments as in `over`, at least one run."""
    return statistics.fmean(statistics.fmean(some) for some in _by_pair(runs, values).values())


def _by_pair(runs: Iterable[tuple[str, int]], values: Sequence[float]) -> dict[str, list[float]]:
    of: dict[str, list[float]] = {}
    for (pair, _), value in zip(runs, values, strict=True):
        of.setdefault(pair, []).append(value)
    return of


def bootstrap(
    worth: Mapping[tuple[str, int], Mapping[str, np.ndarray]], draws: int = DRAWS
) -> Interval | None:
    """95 % interval of the mean over drifted domains, by drawing pairs, seeds and items.

    Args:
        worth: (pair, seed) -> domain -> (items or groups,); those of a domain are the same in all.
        draws: how many.

    Returns:
        None without runs, without a drifted domain, or where items differ.
    """
    keys = sorted(worth)
    domains = sorted({domain for of in worth.values() for domain in of} - {SOURCE})
    if not keys or not domains:
        return None
    for domain in domains:
        sizes = {len(worth[key].get(domain, ())) for key in keys}
        if len(sizes) > 1 or 0 in sizes:
            return None
    answers = [np.stack([worth[key][domain] for key in keys]) for domain in domains]
    weight, drawn = _drawn(tuple(pair for pair, _ in keys), tuple(of.shape[1] for of in answers), draws)
    mean = np.zeros(draws)
    for of, counts in zip(answers, drawn, strict=True):
        mean += ((weight @ of) * (counts / of.shape[1])).sum(axis=1) / len(domains)
    low, high = np.quantile(mean, (0.025, 0.975))
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def _drawn(
    pairs: tuple[str, ...], sizes: tuple[int, ...], draws: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(draws, runs): how much each run counts; and for each domain (draws, items): how often each was drawn.

    They depend on nothing else, so the arms of a table share them.
    """
    rng = np.random.default_rng(0)
    weight = _weights(pairs, draws, rng)
    return weight, tuple(rng.multinomial(n, np.full(n, 1 / n), size=draws) for n in sizes)


def _weights(pairs: Sequence[str], draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, runs): how much each run counts, where pairs are drawn, and runs within each drawn pair."""
    names = sorted(set(pairs))
    weight = np.zeros((draws, len(pairs)))
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    for which, name in enumerate(names):
        of = [i for i, pair in enumerate(pairs) if pair == name]
        for draw in range(draws):
            total = times[draw, which] * len(of)
            if total:
                weight[draw, of] = rng.multinomial(total, np.full(len(of), 1 / len(of))) / len(of)
    return weight / len(names)


def curve(part: Part, data: str, figures: Figures, arm: str) -> list[tuple[float, Row]]:
    """(accuracy of the teacher on the stream, the row of an arm) for each pair that has both, rising."""
    points = []
    for pair in part.pairs[data]:
        of = teacher(part, data, figures, pair)
        mine = [row for row in rows(part, data, figures, pair=pair) if row.label == arm]
        if of is not None and of.on_stream is not None and mine:
            points.append((of.on_stream, mine[0]))
    return sorted(points, key=lambda of: of[0])


def crossing(points: Sequence[tuple[float, float]], level: float) -> float | None:
    """Where a line through points (x, y), sorted by x, first reaches `level`; None where it never does."""
    ordered = sorted(points)
    for (x0, y0), (x1, y1) in itertools.pairwise(ordered):
        if min(y0, y1) <= level <= max(y0, y1):
            return x0 if y1 == y0 else x0 + (level - y0) / (y1 - y0) * (x1 - x0)
    return None


def bought(row: Row) -> tuple[float, float]:
    """What an arm sent and what it came to: the natural logarithm of its bytes up, its drift accuracy."""
    return math.log(max(1.0, row.counts["uplink_bytes"] or 0.0)), row.acc_drift


def _last(one: Mapping[str, Any], domain: str) -> float:
    return float(one["accuracy"][domain][-1][1])


def _drift(one: Mapping[str, Any]) -> float:
    return drift_mean({domain: of[-1][1] for domain, of in one["accuracy"].items()}) or 0.0


def _lost(one: Mapping[str, Any]) -> float:
    """On the source, before the first round minus after the last: negative where it gained."""
    of = one["accuracy"][SOURCE]
    return float(of[0][1] - of[-1][1])


def _minus(mine: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Item by item; None where the items differ."""
    if {d: len(w) for d, w in mine.items()} != {d: len(w) for d, w in theirs.items()}:
        return None
    return {domain: mine[domain] - theirs[domain] for domain in mine}


def _counted(runs: Mapping[tuple[str, int], Mapping[str, Any]], name: str) -> float | None:
    """The mean of a count; None where no run counted it."""
    there = {key: float(one[name]) for key, one in runs.items() if one.get(name) is not None}
    return mean(there, list(there.values())) if there else None
