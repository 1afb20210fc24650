"""`cdc-flower report`: the page of a comparison again, or several beside each other, from what lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.checked import Folder, NewFile
from experiments.cli.saying import say


def report(
    folders: Annotated[
        list[Path], typer.Argument(click_type=Folder(), help="Of a comparison; of several, side by side.")
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown, too.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            click_type=NewFile(),
            help="The page; default report.html in the folder, of several side-by-side.html here.",
        ),
    ] = None,
) -> None:
    """Write the report of a comparison again, or set several side by side.

    Of one folder also its summary.json. Several are set against the first, arm by arm and seed by seed, with
    a warning where data, pair or settings differ.
    """
    from experiments.report import beside, own, page, retrieval, summary, terminal

    if len(folders) > 1:
        found = beside.read(folders)
        if markdown:
            typer.echo(beside.markdown(found))
        for line in beside.unlike(found):
            say(f"not of one problem: {line}", err=True)
        say(f"report: {beside.write(found, out or Path(beside.PAGE))}")
        return
    comparison = summary.read(folders[0])
    summary.write_summary(comparison)
    if markdown:
        typer.echo(terminal.markdown(comparison))
        for part in (own, retrieval):
            if heads := part.columns(comparison):
                typer.echo(f"\n{terminal.as_markdown(heads, part.rows(comparison))}")
    say(f"report: {page.write(comparison, out)}")
