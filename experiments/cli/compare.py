"""`cdc-flower compare`: methods or the arms of a study, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cdc_flower.config import ConfigError, parse
from experiments.cli import options
from experiments.cli.checked import goes_on, typed, written
from experiments.cli.options import Data, NoPlan, NoPretrain, Out, Preset, Sets, Workers, named
from experiments.cli.saying import say
from experiments.run.settings import assignments, compared

EVERY = "all"  # the methods that can be compared on the data


def compare(
    data: Data = None,
    preset: Preset = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma list, in the order of the table, or 'all'; default: the preset's, or the common ones."
        ),
    ] = None,
    arms: Annotated[
        str | None, typer.Option(help="Instead: a study of experiments/studies, or a TOML file like it.")
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help="Runs per method, default 1; from 2 on with 95 % intervals.",
            show_default=False,
        ),
    ] = 1,
    out: Out = None,
    workers: Workers = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished runs of the same settings, go on with others.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Begin anew where another comparison is, or an unfinished one.")
    ] = False,
    no_pretrain: NoPretrain = False,
    no_plan: NoPlan = False,
    sets: Sets = None,
) -> None:
    """Run methods side by side: table, summary, report."""
    if resume and replace:
        raise ConfigError("--resume and --replace; allowed: one of them")
    chosen: Any = None if methods is None or methods.strip() == EVERY else named(methods)

    from experiments.report import summary
    from experiments.run import arms as studies
    from experiments.run import compare as comparing
    from experiments.run import pool

    settings, of_preset = options.chosen(data, preset, sets)
    if settings.get("run.out-dir"):
        raise ConfigError("setting 'run.out-dir' of a comparison; allowed: the option --out")
    if arms is not None:
        if methods is not None:
            raise ConfigError("--methods and --arms; allowed: one of them, arms name their methods")
        study, chosen = studies.read(arms)
        settings = {
            **settings,
            **study,
            **{k: v for k, v in assignments(sets or []).items() if k != "data.pack"},
        }
        out = out or Path("results") / f"{parse(settings).data.name}-{Path(arms).stem}"
    elif methods is None:
        chosen = compared(of_preset)
    elif chosen is None:
        chosen, wanting = comparing.fitting(parse(settings).data)
        if wanting:
            say(f"note: without {', '.join(wanting)}, which are for clips: the data are pictures")
    folder = out or Path("results") / parse(settings).data.name
    before = written(folder / summary.INDEX)
    with goes_on(lambda: _kept(folder, before)):
        try:
            made = comparing.run(
                settings,
                chosen,
                seeds=seeds,
                out=folder,
                workers=workers,
                resume=resume,
                replace=replace,
                pretrain=not no_pretrain,
                plan=not no_plan,
            )
        except comparing.Interrupted as stopped:
            _show(stopped.comparison)
            raise
    _show(made)
    if made.status == "failed":
        for name, why in made.index["failed"].items():
            arm, _, seed = name.rpartition(pool.SEED)
            log = pool.log_of(summary.run_folder(made.out, arm, int(seed)))
            say(f"error: {name}: {why}; what it printed: {log}", err=True)
        raise typer.Exit(1)


def _kept(folder: Path, before: int) -> str:
    """What a comparison leaves that is interrupted, and how it goes on; `before`: when an earlier one was
    written down in its folder, see `written`.
    """
    from experiments.report import summary

    if written(folder / summary.INDEX) == before:
        return "no run was begun yet; give the same command again"
    return f"what was done is in '{folder}'; this goes on:\n{typed('--resume')}"


def _show(comparison: Any) -> None:
    from experiments.report import own, retrieval, terminal
    from experiments.report.notes import notes
    from experiments.report.page import REPORT
    from experiments.report.tables import Fitted, on_two_lines, show

    show(terminal.table(comparison))
    for title, of in (("devices on their own items", own), ("retrieval", retrieval)):
        if heads := of.columns(comparison):
            show(Fitted([on_two_lines(head) for head in heads], of.rows(comparison), title=title))
    show(*notes(comparison))
    say(f"report: {comparison.out / REPORT}")
