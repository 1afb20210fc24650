"""What arms are judged by, and how sure a figure or a difference is.

Arms are judged by devices' own held-out items where every arm was measured on those, else on the drifted
domains, else, where nothing drifts, on the source. What an interval of 95 % is over is said with it:

- "seeds": Student's t over runs, of differences over pairs of runs of one seed, which meet the same stream;
- "devices": devices (and seeds) drawn with replacement, as `own` does it;
- "questions": one seed, whose held-out answers alone are a sample. Another run may differ by more.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from cdc_flower import results
from experiments.report import charts, own
from experiments.report.amounts import percent
from experiments.report.summary import Comparison, interval, run_folder

OWN, DRIFT, SOURCE = "own", "drift", "source"
NO_WIDTH = 1e-9  # of an interval, but for what floats add


class Sure(NamedTuple):
    """A figure, 0..1, or a difference of two.

    Attributes:
        value: mean over seeds.
        ends: of its 95 % interval; None where nothing says how sure it is.
        over: what the interval is over, see above; "" without one.
        seeds: how many runs, of a difference pairs of runs; 0 = the runs have no seed in common.
    """

    value: float
    ends: tuple[float, float] | None
    over: str
    seeds: int

    @property
    def apart(self) -> bool:
        """Whether a difference is told from 0."""
        return self.ends is not None and not self.ends[0] <= 0.0 <= self.ends[1]


def judged_by(*comparisons: Comparison) -> str:
    """By what the arms of all these are judged: `OWN`, `DRIFT` or `SOURCE`."""
    if all(
        len(own.last(made.personal, arm)) for made in comparisons for arm in made.methods["method"].tolist()
    ):
        return OWN
    drifted = all(len(made.methods) and made.methods["acc_drift"].notna().all() for made in comparisons)
    return DRIFT if drifted else SOURCE


def curve(comparison: Comparison, by: str) -> pd.DataFrame:
    """What every arm reached over rounds: method, round, mean over seeds."""
    if by != OWN:
        return charts.accuracy(comparison.rounds, by)[["method", "round", "mean"]]
    sums = comparison.personal.groupby(["method", "round"], as_index=False)[["worth", "items"]].sum()
    return sums.assign(mean=sums["worth"] / sums["items"])[["method", "round", "mean"]]


def reached(comparison: Comparison, arm: str, by: str) -> Sure:
    """What an arm has after its last round."""
    if by == OWN:
        rows = own.last(comparison.personal, arm)
        ends = own.interval(rows)
        return Sure(own.mean(rows) or 0.0, ends, "devices" if ends else "", rows["seed"].nunique())
    values = _by_seed(comparison, arm, by)
    return _sure(values, _worth(comparison, arm, values, by))


def lead(mine: tuple[Comparison, str], theirs: tuple[Comparison, str], by: str, alike: bool = True) -> Sure:
    """How far one arm is ahead of another, over the seeds that both have.

    Args:
        mine: an arm, with its comparison.
        theirs: another, of the same comparison or not.
        by: what both are judged by.
        alike: both met the same data; else nothing says how sure the difference is.
    """
    if not alike:
        apart = [reached(*of, by).value for of in (mine, theirs)]
        return Sure(apart[0] - apart[1], None, "", 0)
    if by == OWN:
        rows = [own.last(made.personal, arm) for made, arm in (mine, theirs)]
        if found := own.difference(*rows):
            return Sure(*found, "devices" if found[1] else "", rows[0]["seed"].nunique())
        return Sure((own.mean(rows[0]) or 0.0) - (own.mean(rows[1]) or 0.0), None, "", 0)
    one, other = (_by_seed(*of, by) for of in (mine, theirs))
    apart = (one - other).dropna()
    if apart.empty:
        return Sure(one.mean() - other.mean(), None, "", 0)
    (a, b) = (_worth(*of, apart, by) for of in (mine, theirs))
    same = a and b and {d: len(w) for d, w in a.items()} == {d: len(w) for d, w in b.items()}
    return _sure(apart, {d: a[d] - b[d] for d in a} if same else {})


def same_answers(one: Comparison, other: Comparison, arm: str, by: str) -> bool:
    """Whether an arm has the same answers right in two comparisons, in every run of both."""
    both = one, other
    seeds = [sorted(made.runs.loc[made.runs["method"] == arm, "seed"]) for made in both]
    if seeds[0] != seeds[1] or (by == OWN and not own.alike(*(own.last(m.personal, arm) for m in both))):
        return False
    try:
        items = [[results.read_items(run_folder(m.out, arm, int(seed))) for seed in seeds[0]] for m in both]
    except results.ResultError:
        return False
    return all(a.equals(b) for a, b in zip(*items, strict=True))


def told(lead: Sure) -> str:
    """How sure a difference is, in words."""
    if lead.ends is None:
        return "how sure that is is not known"
    ends = f"95 % interval {' to '.join(percent(end, sign=True) for end in lead.ends)}"
    ends += f" over the {lead.over} of one seed" if lead.seeds == 1 else ""
    return ends if lead.apart else f"not told apart from 0: {ends}"


def _by_seed(comparison: Comparison, arm: str, by: str) -> pd.Series:
    runs = comparison.runs[comparison.runs["method"] == arm]
    return runs.set_index("seed")[f"acc_{by}"].dropna().astype(float).sort_index()


def _sure(values: pd.Series, worth: Mapping[str, np.ndarray]) -> Sure:
    """Of figures by seed; of a single one by what its answers are worth, domain by domain."""
    mean = statistics.fmean(values)
    if len(values) > 1:
        return _where_something_varies(Sure(mean, interval(values.tolist()), "seeds", len(values)))
    if not worth or min(map(len, worth.values())) < 2:
        return Sure(mean, None, "", 1)
    half = 1.96 * sum(of.var(ddof=1) / len(of) for of in worth.values()) ** 0.5 / len(worth)
    return _where_something_varies(Sure(mean, (mean - half, mean + half), "questions", 1))


def _where_something_varies(found: Sure) -> Sure:
    """A figure without its interval where that has no width: what is all alike does not say how others would
    be, and is not certain.
    """
    low, high = found.ends or (0.0, 0.0)
    return found if high - low > NO_WIDTH else found._replace(ends=None, over="")


def _worth(comparison: Comparison, arm: str, of: pd.Series, by: str) -> dict[str, np.ndarray]:
    """Domain -> what each answer of a single run is worth; {} for several runs, or where that is not kept."""
    if len(of) != 1:
        return {}
    try:
        items = results.read_items(run_folder(comparison.out, arm, int(of.index[0])))
    except results.ResultError:
        return {}
    return {
        str(domain): rows.to_numpy(float)
        for domain, rows in items.groupby("domain")["worth"]
        if (domain == SOURCE) == (by == SOURCE)
    }
