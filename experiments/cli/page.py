"""`cdc-flower page`: the comparison that the documents hold, made in pieces, each kept until it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.checked import File, NewFolder, goes_on
from experiments.cli.options import Sets, Workers, checked
from experiments.cli.saying import say
from experiments.run.settings import assignments

RESULTS = Path("docs/results")


def page(
    out: Annotated[
        Path, typer.Option(click_type=NewFolder(), help="Folder for runs, page.json and figures.")
    ] = Path("results/page"),
    results: Annotated[
        Path, typer.Option(click_type=NewFolder(), help="Folder of the cells and tables that are kept.")
    ] = RESULTS,
    only: Annotated[
        str | None, typer.Option(help="Comma list of parts, data and arms; default: all.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, max=10_000, help="Start no further cell after so many.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="The first so many seeds; default: all.", show_default=False)
    ] = 100,
    workers: Workers = None,
    listing: Annotated[bool, typer.Option("--list", help="Say what would be made; make nothing.")] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Write tables and figures again from the cells; make none.")
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(click_type=File(), help="Default: experiments/page.toml.", show_default=False),
    ] = None,
    sets: Sets = None,
) -> None:
    """Make the tables of the documents, a cell (data, arm, seed) at a time.

    What was made before and has not changed is kept. Ends with 1 where a cell failed; --set tries other
    settings, and --plan is another page: for both --results must be a folder of their own, where the tables
    are written beside the cells, and no document is filled in.
    """
    from cdc_flower.config import ConfigError
    from experiments.page import plan as planning
    from experiments.page import write
    from experiments.page.cells import FOLDER

    changes = assignments(sets or [])
    checked(changes)
    of_documents = results.resolve() == RESULTS.resolve()
    own = "--set" if changes else "--plan" if plan is not None else ""
    if own and of_documents:
        raise ConfigError(f"{own} with the results of the documents; allowed: --results with another folder")
    found = planning.read(plan)
    for arm, why in found.skipped.items():
        say(f"skipped: {arm}: {why}", err=True)
    names = () if only is None else tuple(name.strip() for name in only.split(",") if name.strip())
    chosen = found.cells(names, seeds)
    if of_documents and not (results / FOLDER).is_dir():
        raise ConfigError(
            f"no folder '{results / FOLDER}' here; allowed: the repository's root, or --results FOLDER"
        )
    leave = partial(write.write, found, results, out, of_documents)
    failed = {} if tables else _made(leave, found, chosen, results, out, workers, minutes, listing, changes)
    if not listing:
        for path in leave():
            say(str(path))
    for name, why in failed.items():
        say(f"error: {name}: {why}", err=True)
    if failed:
        raise typer.Exit(1)


def _made(
    leave: Callable[[], Any],
    found: Any,
    chosen: Sequence[Any],
    results: Path,
    out: Path,
    workers: int | None,
    minutes: float | None,
    listing: bool,
    changes: Mapping[str, Any],
) -> dict[str, str]:
    """Make what is to be made; cell -> why it failed. Also after Ctrl-C the tables are written."""
    from cdc_flower.lock import locked
    from experiments.page import make
    from experiments.report.terminal import Terminal
    from experiments.run import plan as planning
    from experiments.run import pool

    pool.silence()
    tasks = make.tasks(found, chosen, results, changes)
    busy = planning.cores() if workers is None else workers
    todo = [task for task in tasks if task.todo]
    for why in dict.fromkeys(task.skipped for task in tasks if task.skipped):
        cells = [task.cell.name for task in tasks if task.skipped == why]
        say(f"skipped: {len(cells)} cells, as {cells[0]}: {why}", err=True)
    if listing:
        for task in tasks:
            say(f"{task.cell.name}: {task.state}")
        say(_left(todo, busy))
        return {}
    for task in todo:
        if task.why != "missing":
            say(f"{task.cell.name}: no longer holds: {task.told}", err=True)
    safe = goes_on(lambda: f"cells that are finished are in '{results}'; the same command goes on")
    with safe, locked(out), locked(results), Terminal(len(todo)) as terminal:
        try:
            ended = make.make(todo, results, out, busy, terminal.listen, minutes)
        except KeyboardInterrupt:
            leave()
            raise
    kept = len(tasks) - len(todo) + len(ended.kept)
    say(f"{len(ended.made)} made, {kept} kept or skipped; {_left(ended.left, busy)}")
    return ended.failed


def _left(left: Sequence[Any], workers: int) -> str:
    from experiments.page import make

    if not left:
        return "none left"
    return f"{len(left)} left, about {make.minutes(left, workers):.0f} minutes on {max(workers, 1)} workers"
