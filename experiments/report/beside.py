"""Several results on one page: arm by arm, with differences that are paired by seed.

Every result is set against the first one. A difference has an interval where both met the same data, by
digest and by settings. Where results are not of one problem (`leaderboard.problem_of`) the page says first in
what they differ: the difference of an arm holds that, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cdc_flower import disk, results
from cdc_flower.config import ConfigError
from cdc_flower.tasks import task_of
from experiments.report import charts, charts_cost, first, leaderboard, page, summary, sure
from experiments.report.amounts import percent, size
from experiments.report.summary import Comparison
from experiments.report.sure import Sure
from experiments.report.terminal import as_markdown, share

PAGE = "side-by-side.html"
OF_DATA = ("data", "drift", "run.devices", "run.samples-per-round", "run.cohort")
COLUMNS = ("arm", "result", "right %", "bytes", "seeds", "against", "points more", "95 % interval", "over")
DIGESTS = ("data_digest", "pair_digest")


class Result(NamedTuple):
    """One folder.

    Attributes:
        name: what it is called on the page.
        made: what lies in it.
        problem: what its runs were asked to solve, with digests of data and pair.
    """

    name: str
    made: Comparison
    problem: Mapping[str, Any]


class Row(NamedTuple):
    """An arm of one result.

    Attributes:
        lead: its distance to the same arm of the first result; None without that.
        same: it has the same answers right as that arm.
    """

    arm: str
    result: Result
    reached: Sure
    lead: Sure | None
    same: bool = False


def read(folders: Sequence[Path]) -> list[Result]:
    """The results in some folders.

    Raises:
        ConfigError: a folder twice, one that holds no comparison, or none with a run.
    """
    summary.refuse_twice(folders)
    paths = [folder.resolve() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path.relative_to(os.path.commonpath(paths))) for path in paths]
    return [_result(name, folder) for name, folder in zip(names, folders, strict=True)]


def _result(name: str, folder: Path) -> Result:
    made = summary.read(folder)
    if made.methods.empty:
        raise ConfigError(f"{folder}: no run of it was evaluated; allowed: comparisons with a result")
    run = made.runs.iloc[0]
    info = results.read_info(summary.run_folder(made.out, str(run["method"]), int(run["seed"])))
    return Result(name, made, leaderboard.problem_of(info))


def unlike(found: Sequence[Result]) -> list[str]:
    """In what the problems differ, a phrase each."""
    keys = sorted({key for one in found for key in one.problem})
    return [
        f"{key.replace('_', ' ')} is "
        + first.listed([f"{str(one.problem.get(key, ''))[:12] or 'not set'} in {one.name}" for one in found])
        for key in keys
        if len({str(one.problem.get(key)) for one in found}) > 1
    ]


def rows(found: Sequence[Result]) -> list[Row]:
    """Arm by arm, in the order of the results."""
    by, base, made = sure.judged_by(*(one.made for one in found)), found[0], []
    for arm in dict.fromkeys(arm for one in found for arm in one.made.methods["method"]):
        for one in found:
            if arm in set(one.made.methods["method"]):
                lead, same = None, False
                if one is not base and arm in set(base.made.methods["method"]):
                    alike = _same_data(base, one)
                    lead = sure.lead((one.made, arm), (base.made, arm), by, alike)
                    same = alike and sure.same_answers(one.made, base.made, arm, by)
                made.append(Row(arm, one, sure.reached(one.made, arm, by), lead, same))
    return made


def _same_data(one: Result, other: Result) -> bool:
    keys = ["data_digest", *(k for k in one.problem if k.startswith(OF_DATA))]
    return all(one.problem[key] == other.problem.get(key) for key in keys)


def cells(made: Sequence[Row], base: Result) -> list[tuple[str, ...]]:
    """The rows as texts, in the order of `COLUMNS`."""
    return [
        (
            *(row.arm, row.result.name, share(row.reached.value, *(row.reached.ends or ()))),
            *(size(summary.moved(row.result.made, row.arm)), str(len(row.result.made.index["seeds"]))),
            *(("", "", "", "") if row.lead is None else _apart(row, row.lead, base)),
        )
        for row in made
    ]


def _apart(row: Row, lead: Sure, base: Result) -> tuple[str, ...]:
    ends = " to ".join(percent(end, sign=True) for end in lead.ends) if lead.ends else "not known"
    ends = "same answers" if row.same else ends
    alike = "one seed" if lead.seeds == 1 else f"{lead.seeds} seeds"
    none = alike if lead.seeds else "no common seed" if _same_data(base, row.result) else "other data"
    over = {"questions": "questions of one seed", "": none}
    return base.name, percent(lead.value, sign=True), ends, over.get(lead.over, f"{lead.seeds} {lead.over}")


def sentences(found: Sequence[Result], made: Sequence[Row]) -> tuple[str, str]:
    """What stands side by side, and what the differences are."""
    base, by = found[0], sure.judged_by(*(one.made for one in found))
    each = [f"{one.name} ({first.named(one.made.index)})" for one in found]
    what = {sure.OWN: "devices' own questions", sure.DRIFT: "questions about what was new"}.get(
        by, "questions"
    )
    begin = f"Side by side are {len(found)} results, {first.listed(each)}, judged by held-out {what}"
    if stopped := [one.name for one in found if one.made.status != "completed"]:
        return f"{begin}.", f"Nothing is concluded, because {first.listed(stopped)} did not end."
    leads = [(row, row.lead) for row in made if row.lead is not None]
    if not leads:
        return f"{begin}.", "No arm of one is in another by name, so that there is no difference to tell."
    told = [_difference(row, lead, base) for row, lead in leads[: first.NAMED]]
    return (
        f"{begin}.",
        f"{first.listed(told)}{'; further ones are in the table' if len(leads) > first.NAMED else ''}.",
    )


def _difference(row: Row, lead: Sure, base: Result) -> str:
    if row.same:
        return f"{row.arm} has the same answers right in {row.result.name} as in {base.name}"
    if not round(lead.value, 3):
        return f"{row.arm} is as good in {row.result.name} as in {base.name} ({sure.told(lead)})"
    more = f"{share(abs(lead.value))} points {'better' if lead.value > 0 else 'worse'}"
    return f"{row.arm} is {more} in {row.result.name} than in {base.name} ({sure.told(lead)})"


def settings(found: Sequence[Result]) -> list[tuple[str, ...]]:
    """Digests, and settings that are not the same everywhere: of all arms, then those of an arm by name."""
    names = [f"{name.replace('_', ' ')}" for name in DIGESTS]
    shown = [
        (name, *(str(one.problem[key])[:12] or "-" for one in found))
        for name, key in zip(names, DIGESTS, strict=True)
    ]
    shown.append(("problem digest", *(leaderboard.digest_of(one.problem) for one in found)))
    told = [
        {
            key: value
            for key, value in one.made.index["config"].items()
            if key not in ("run.method", "run.out-dir")
        }
        | {f"{arm}: {key}": value for arm, of in one.made.index["arms"].items() for key, value in of.items()}
        | {f"version of {name}": value for name, value in one.made.index["versions"].items()}
        for one in found
    ]
    own = {f"{arm}: run.method": arm for one in found for arm in one.made.index["arms"]}
    for key in dict.fromkeys(key for of in told for key in of):
        values = [str(of.get(key, "-")) for of in told]
        if len(set(values)) > 1 and not set(values) <= {"-", own.get(key)}:
            shown.append((key, *values))
    return shown


def render(found: Sequence[Result]) -> str:
    """The page as text."""
    made, base = rows(found), found[0]
    unit = task_of(base.made.index["config"]).shown
    page_of = partial(
        page.template("beside").render,
        title=first.listed([one.name for one in found]),
        first=sentences(found, made),
        unlike=unlike(found),
        cost=_cost(found, made, unit),
        columns=COLUMNS,
        rows=cells(made, base),
        names=[one.name for one in found],
        settings=settings(found),
    )
    shown = re.sub(r"<style.*?</style>|<[^>]*>", " ", page_of(words=()), flags=re.DOTALL)
    return page_of(words=[(word, what) for word, what in page.WORDS if _stands(word, shown)])


def _stands(word: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(word)}s?(?!\w)", text, re.IGNORECASE) is not None


def write(found: Sequence[Result], path: Path) -> Path:
    """Write the page.

    Raises:
        DiskError: the disk does not take it.
    """
    disk.replace(path, render(found).encode())
    return path


def _cost(found: Sequence[Result], made: Sequence[Row], unit: str) -> str:
    by = sure.judged_by(*(one.made for one in found))
    paths = {
        f"{row.arm} ({row.result.name})": charts_cost.Path(
            [(summary.moved(row.result.made, row.arm), row.reached.value)], row.reached.ends
        )
        for row in made
    }
    return charts_cost.cost_panel(paths, None, charts.styles(paths), page.TITLES[by], unit)


def markdown(found: Sequence[Result]) -> str:
    """The table for a note."""
    return as_markdown(COLUMNS, cells(rows(found), found[0]))
