"""`cdc-flower report`: the page of a comparison again, from what lies in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.checked import Folder


def report(
    folder: Annotated[Path, typer.Argument(click_type=Folder(), help="Of a comparison.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown, too.")] = False,
) -> None:
    """Write the report of a comparison again.

    And its summary.json, from what lies in its folder.
    """
    from experiments.report import own, page, retrieval, summary, terminal

    comparison = summary.read(folder)
    summary.write_summary(comparison)
    if markdown:
        typer.echo(terminal.markdown(comparison))
        for table in (own, retrieval):
            if heads := table.columns(comparison):
                typer.echo(f"\n{terminal.as_markdown(heads, table.rows(comparison))}")
    typer.echo(f"report: {page.write(folder)}")
