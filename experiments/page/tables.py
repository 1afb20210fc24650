"""The page as Markdown: a block for each part and data, made of cells alone, between marks in documents.

`<!-- page: main scenes -->` and `<!-- /page -->` stand on lines of their own; what is between them is written
by `cdc-flower page`, and a test checks that it is what the committed cells give.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.page import numbers
from experiments.page.numbers import Figures, Interval, Row
from experiments.page.plan import Part, Plan
from experiments.report import amounts
from experiments.report.amounts import size

SUMMARY, DOMAINS = "summary", "by domain"  # names of blocks beside those of data
MARK = re.compile(r"(<!-- page: ([^>]+?) -->\n)(.*?)(<!-- /page -->)", re.S)
Table = list[tuple[str, ...]]


def blocks(plan: Plan, figures: Figures) -> dict[str, str]:
    """Name of a block -> its text: "main scenes" and so on for each part and data, and "main summary" and
    "main by domain" of a part that names the arms of one.
    """
    found = {}
    for part in plan.parts.values():
        for data in part.data:
            found[f"{part.name} {data}"] = block(part, data, figures)
        if part.summary:
            rows = {data: _by_label(numbers.rows(part, data, figures)) for data in part.data}
            for name, table in ((SUMMARY, _summary(part, rows, figures)), (DOMAINS, _domains(part, rows))):
                found[f"{part.name} {name}"] = (
                    f"{_lines(table)}\nMade by `cdc-flower page --only {part.name}`.\n"
                )
    return found


def block(part: Part, data: str, figures: Figures) -> str:
    """The table of a part on some data, with the command that makes it."""
    shown = {"main": _main, "table": _main, "ladder": _ladder, "budget": _budget, "crossing": _crossing}
    return _block(part, data, shown[part.kind](part, data, figures), figures)


def _block(part: Part, data: str, table: Table, figures: Figures) -> str:
    """The text does not depend on cells that are not there: a new method changes no document."""
    command = f"`cdc-flower page --only {part.name},{data}`"
    if len(table) < 2:
        return f"Not made yet: {command}.\n"
    items = sorted({row.items for row in numbers.rows(part, data, figures)})
    counts = " or ".join(f"{count:,}" for count in items)
    shares = f"Shares are of {counts} held-out questions. " if items else ""
    return f"{_lines(table)}\n{shares}Made by {command}.\n"


def _lines(table: Table) -> str:
    heads, *body = table
    lines = [heads, ("---", *["---:"] * (len(heads) - 1)), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


Rows = Mapping[str, Mapping[str, Row]]
"""Data -> label of an arm -> its row."""


def _by_label(rows: Sequence[Row]) -> dict[str, Row]:
    return {row.label: row for row in rows}


def _summary(part: Part, rows: Rows, figures: Figures) -> Table:
    """A few arms on all data of a part, a line each: what they come to, what they forget, and what they cost
    on the first of the data; last the teacher on what devices meet.
    """
    first = part.data[0]
    heads = ["method", *(head for data in part.data for head in (f"{data}: drift", "forgets"))]
    heads += [f"{first}: bytes", "device GFLOP", "cloud GFLOP"]
    body = [
        (arm, *(cell for of in rows.values() for cell in _ended(of.get(arm))), *_costs(rows[first].get(arm)))
        for arm in part.summary
    ]
    teachers = [numbers.teacher(part, data, figures) for data in part.data]
    met = ["" if of is None or of.on_stream is None else percent(of.on_stream) for of in teachers]
    body.append(("teacher, of what devices meet", *(cell for one in met for cell in (one, "")), "", "", ""))
    return [tuple(heads), *body]


def _domains(part: Part, rows: Rows) -> Table:
    """The arms of a summary on each drifted domain."""
    places = [
        (data, domain)
        for data, of in rows.items()
        for domain in sorted({domain for row in of.values() for domain in row.by_domain})
    ]
    heads = ("method", *(f"{data}: {domain}" for data, domain in places))
    body = [
        (arm, *(percent(row.by_domain[of]) if (row := rows[data].get(arm)) else "" for data, of in places))
        for arm in part.summary
    ]
    return [heads, *body]


def _costs(row: Row | None) -> tuple[str, str, str]:
    """Bytes both ways, and operations."""
    if row is None:
        return "", "", ""
    up, down, device, cloud = (row.counts[name] or 0.0 for name in numbers.COUNTS)
    return size(up + down), operations(device), operations(cloud)


def _main(part: Part, data: str, figures: Figures) -> Table:
    rows = numbers.rows(part, data, figures)
    base = next((part.plain[row.to] for row in rows if row.to), "cdc")
    heads = ("method", "labels", "backprop", "source", "drift", "drift, items too", "gap closed")
    heads += ("forgets", "up", "down", "device GFLOP", "cloud GFLOP", f"drift − {base}", "seeds")
    body = [
        (
            row.label,
            *("yes" if has else "no" for has in (row.labels, row.device_backprop)),
            percent(row.acc_source),
            percent(row.acc_drift, row.drift_ci),
            span(row.drift_items_ci),
            "" if row.gap_closed is None else f"{round(100 * row.gap_closed)} %",
            signed(row.forgetting, row.forgetting_ci),
            *_counts(row),
            _difference(row),
            _runs(row),
        )
        for row in rows
    ]
    return [heads, *body, *_teacher(part, data, figures, len(heads))] if body else [heads]


def _runs(row: numbers.Row) -> str:
    """How many seeds; of each pair where there are several."""
    alike = len(set(row.runs)) == 1
    if len(row.runs) == 1:
        return str(row.seeds)
    return f"{len(row.runs)} x {row.seeds}" if alike else " + ".join(map(str, row.runs))


def _teacher(part: Part, data: str, figures: Figures, width: int) -> Table:
    found = numbers.teacher(part, data, figures)
    if found is None:
        return []
    stream = "" if found.on_stream is None else f" (on the stream {percent(found.on_stream)})"
    line = ("teacher", "", "", percent(found.source), percent(found.on_test) + stream)
    return [line + ("",) * (width - len(line))]


def _ladder(part: Part, data: str, figures: Figures) -> Table:
    heads = ("arm", "source", "drift", "drift − cdc, by seed", "up", "down", "device GFLOP", "cloud GFLOP")
    heads += ("seeds",)
    return [
        heads,
        *(
            (
                row.label,
                percent(row.acc_source),
                percent(row.acc_drift, row.drift_ci),
                _difference(row),
                *_counts(row),
                str(row.seeds),
            )
            for row in numbers.rows(part, data, figures)
        ),
    ]


def _budget(part: Part, data: str, figures: Figures) -> Table:
    rows = numbers.rows(part, data, figures)
    to = next((part.plain[row.to] for row in rows if row.to), "cdc")
    points = [numbers.bought(row) for row in rows if part.plain[row.label] == to]
    heads = ("budget", "arm", "source", "drift", f"drift − {to}, by seed", "up", "down")
    return [
        (*heads, f"{to} gets there with", "seeds"),
        *(
            (
                part.variants[row.label],
                part.plain[row.label],
                percent(row.acc_source),
                percent(row.acc_drift, row.drift_ci),
                _difference(row),
                *_counts(row)[:2],
                _as_much(points, row) if part.plain[row.label] != to else "",
                str(row.seeds),
            )
            for row in rows
        ),
    ]


def _as_much(points: Sequence[tuple[float, float]], row: Row) -> str:
    """The bytes up at which a line through points (log bytes, drift) is where an arm is, and their share of
    the arm's own. Below its first point, and where it never comes there, it says that.
    """
    if not points:
        return ""
    sent, level = numbers.bought(row)
    (least, low), (most, _) = min(points), max(points)
    if low > level:  # also where, by chance, more bytes did worse and the line falls through the level
        return f"less than {size(math.exp(least))}, its least"
    at = numbers.crossing(points, level)
    if at is None:
        return f"not with {size(math.exp(most))}, its most"
    return f"{size(math.exp(at))} ({100 * math.exp(at - sent):.0f} %)"


def _crossing(part: Part, data: str, figures: Figures) -> Table:
    """A line a pair: what each arm that its teacher taught comes to, and how far that is from arms without a
    teacher, which have one line of their own; where the first reach those stands last.
    """
    taught = [arm for arm in part.arms if part.plain[arm] not in part.once]
    first = part.pairs[data][0]
    levels = [row for row in numbers.rows(part, data, figures, pair=first) if row.label not in taught]
    between = [(arm, row.label) for arm in taught for row in levels]
    own = [head for arm in taught for head in (arm, f"{arm} forgets")]
    heads = ("teacher on the stream", "teacher on test", *own, *(f"{arm} − {to}" for arm, to in between))
    body = []
    for pair in part.pairs[data]:
        of = numbers.teacher(part, data, figures, pair)
        rows = _by_label(numbers.rows(part, data, figures, pair=pair))
        if of is not None and of.on_stream is not None and any(arm in rows for arm in taught):
            mine = [cell for arm in taught for cell in _ended(rows.get(arm))]
            by_seed = [numbers.across(part, data, figures, (arm, pair), (to, first)) for arm, to in between]
            differences = ["" if one is None else signed(*one) for one in by_seed]
            body.append((of.on_stream, (percent(of.on_stream), percent(of.on_test), *mine, *differences)))
    body = [line for _, line in sorted(body)]
    if body and levels:
        empty = ("",) * (1 + len(own))
        own_drift = [percent(row.acc_drift, row.drift_ci) for row in levels]
        body.append(("the other arm itself", *empty, *own_drift * len(taught)))
        places = []
        for arm in taught:
            points = [(x, of.acc_drift) for x, of in numbers.curve(part, data, figures, arm)]
            places += [_place(points, row) for row in levels]
        body.append(("the lines cross", *empty, *places))
    return [heads, *body]


def _ended(row: Row | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    return percent(row.acc_drift, row.drift_ci), signed(row.forgetting, row.forgetting_ci)


def _place(points: Sequence[tuple[float, float]], level: Row) -> str:
    """Where a line through points reaches an arm, and in brackets where the ends of the arm's interval."""
    at = numbers.crossing(points, level.acc_drift)
    if at is not None:
        ends = (numbers.crossing(points, end) for end in level.drift_ci or ())
        between = ", ".join("nowhere" if end is None else percent(end) for end in ends)
        return f"at {percent(at)}" + (f" [{between}]" if between else "")
    above = bool(points) and points[0][1] > level.acc_drift
    return "" if not points else "with all of these" if above else "with none of these"


def _counts(row: Row) -> tuple[str, str, str, str]:
    up, down, device, cloud = (row.counts[name] for name in numbers.COUNTS)
    return size(up), size(down), operations(device), operations(cloud)


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    return f"{signed(row.difference, row.difference_ci)} {span(row.difference_items_ci)}".strip()


def operations(value: float | None) -> str:
    """GFLOP: three digits, or whole from 1,000 on."""
    return "" if value is None else amounts.whole(value)


def percent(value: float, ci: Interval | None = None) -> str:
    """0.772 -> "77.2", with half the width of its interval behind it."""
    return amounts.percent(value) + _half(ci)


def signed(value: float, ci: Interval | None = None) -> str:
    """In points, with a sign: 0.0 has none."""
    text = amounts.percent(value, sign=True)
    return (text[1:] if text[1:] == "0.0" else text) + _half(ci)


def _half(ci: Interval | None) -> str:
    return f" ±{amounts.percent((ci[1] - ci[0]) / 2)}" if ci else ""


def span(ci: Interval | None) -> str:
    """An interval, in percent."""
    return f"[{amounts.percent(ci[0])}, {amounts.percent(ci[1])}]" if ci else ""


def filled(text: str, made: Mapping[str, str]) -> str:
    """A document with what stands between its marks made anew.

    Raises:
        ValueError: a mark that names no block.
    """
    unknown = [name for _, name, _, _ in MARK.findall(text) if name not in made]
    if unknown:
        raise ValueError(f"mark 'page: {unknown[0]}'; allowed: {', '.join(made)}")
    return MARK.sub(lambda found: f"{found[1]}{made[found[2]]}{found[4]}", text)


def documents(plan: Plan, made: Mapping[str, str]) -> dict[str, str]:
    """File name -> text of the tables of each part."""
    head = "Written by `cdc-flower page` from the cells beside it; do not edit."
    return {
        f"{part.name}.md": "\n".join(
            [
                f"# {part.title}\n\n{head}\n",
                *(made[f"{part.name} {block}"] for block in (SUMMARY, DOMAINS) if part.summary),
                *(f"## {data}\n\n{made[f'{part.name} {data}']}" for data in part.data),
            ]
        )
        for part in plan.parts.values()
    }


def marked(folder: Path) -> Sequence[Path]:
    """The documents beside and above a folder of results that have marks."""
    every = [*sorted(folder.parent.glob("*.md")), folder.parent.parent / "README.md"]
    return [path for path in every if path.is_file() and MARK.search(path.read_text(encoding="utf-8"))]
