"""`cdc-flower leaderboard`: results of several comparisons, ranked, where they may be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.checked import Folder
from experiments.cli.saying import say

SPARE = ("device GFLOP", "labels", "seeds", "J", "source %")


def leaderboard(
    folders: Annotated[
        list[Path], typer.Argument(click_type=Folder(), help="Of comparisons, own or others'.")
    ],
    apart: Annotated[
        bool, typer.Option("--apart", help="Results of different problems: a table for each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Rank the arms of several comparisons: accuracy, bytes, device compute, seconds, joules.

    Rows are refused beside each other where data, pair or problem differ. A star is the Pareto front: nothing
    else is as accurate and as cheap in everything.
    """
    from dataclasses import asdict

    from experiments.report import leaderboard as board
    from experiments.report.amounts import size, whole
    from experiments.report.tables import Fitted, on_two_lines, show
    from experiments.report.terminal import share

    found = board.boards(folders, apart=apart)
    if as_json:
        listed = [
            {"digest": b.digest, "problem": b.problem, "rows": [asdict(r) for r in b.rows]} for b in found
        ]
        typer.echo(json.dumps(listed, indent=1))
        return
    heads = ("", "arm", "drift %", "source %", "bytes", "device GFLOP", "device s", "J", "labels", "seeds")
    for one in found:
        rows = [
            (
                "*" if row.front else "",
                row.name if len(folders) == 1 else f"{row.name} ({Path(row.folder).name})",
                share(row.accuracy, row.low, row.high),
                share(row.source),
                size(row.costs["bytes"]),
                *map(whole, list(row.costs.values())[1:]),
                "yes" if row.labels else "no",
                str(row.seeds),
            )
            for row in one.rows
        ]
        items = one.rows[0].items if one.rows else 0
        title = f"problem {one.digest}, {items:,} held-out items"
        two, spare = (list(map(on_two_lines, some)) for some in (heads, SPARE))
        show(Fitted(two, rows, spare, wraps=two[1:2], title=title))
        told = {k: str(one.problem[k])[:12] for k in ("data_digest", "pair_digest")}
        say(f"data {told['data_digest']}, pair {told['pair_digest']}; * = Pareto front")
