"""The command line: `cdc-flower compare | simulate | probe | pretrain | data | fleet | calibrate | report`.

What cannot be used is refused with one line on standard error and exit code 2; Ctrl-C ends with 130 after
the rounds that were done have been reported; a run that failed ends with 1. Commands import what they need
when they are called.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from cdc_flower.config import METHODS, ConfigError, parse
from experiments.cli.data import Preset, Sets, chosen_settings, data_app
from experiments.cli.fleet import calibrate, fleet_app
from experiments.pretrain.recipes import RECIPES, Recipe, shortened
from experiments.run.settings import assignments

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Compressed multimodal models on devices, and a cloud that keeps them right as their world drifts.",
)
app.add_typer(data_app, name="data")
app.add_typer(fleet_app, name="fleet")
app.command()(calibrate)

Data = Annotated[str | None, typer.Option(help='"scenes" (generated) or the folder of a data pack.')]
Out = Annotated[Path | None, typer.Option(help="Folder for the results.")]
NoPretrain = Annotated[
    bool, typer.Option("--no-pretrain", help="Refuse a pack without a pair of models; do not train one.")
]


class Engine(StrEnum):
    """Where a simulation runs."""

    local = "local"
    fleet = "fleet"
    flower = "flower"


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from cdc_flower import results

        typer.echo(f"cdc-flower {results.package_versions().get('cdc-flower', 'as source, not installed')}")
        raise typer.Exit


@app.command()
def compare(
    data: Data = None,
    preset: Preset = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Comma list, in the order of the table; default: all.", show_default=False),
    ] = None,
    arms: Annotated[
        str | None, typer.Option(help="Instead: a study of experiments/studies, or a TOML file like it.")
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(help="Runs per method, default 1; from 2 on with 95 % intervals.", show_default=False),
    ] = 1,
    out: Out = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default one per core.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished runs of the same settings, go on with others.")
    ] = False,
    no_pretrain: NoPretrain = False,
    sets: Sets = None,
) -> None:
    """Run methods side by side: table, summary, report."""
    from experiments.run import arms as ablate
    from experiments.run import compare as comparing

    chosen: Any = METHODS if methods is None else tuple(m.strip() for m in methods.split(",") if m.strip())
    settings = chosen_settings(data, preset, sets)
    if arms is not None:
        if methods is not None:
            raise ConfigError("--methods and --arms; allowed: one of them, arms name their methods")
        study, chosen = ablate.read(arms)
        settings = {
            **settings,
            **study,
            **{k: v for k, v in assignments(sets or []).items() if k != "data.pack"},
        }
        out = out or Path("results") / f"{parse(settings).data.name}-{Path(arms).stem}"
    try:
        made = comparing.run(
            settings, chosen, seeds=seeds, out=out, workers=workers, resume=resume, pretrain=not no_pretrain
        )
    except comparing.Interrupted as stopped:
        _show(stopped.comparison)
        raise
    _show(made)
    if made.status == "failed":
        for name, why in made.index["failed"].items():
            typer.echo(f"error: {name}: {why}", err=True)
        raise typer.Exit(1)


def _show(comparison: Any) -> None:
    from rich.console import Console

    from experiments.report import terminal as screen
    from experiments.report.notes import notes
    from experiments.report.page import REPORT

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 100  # a file or a pipe
    console.print(screen.table(comparison, console.width))
    for line in notes(comparison):
        console.print(line, markup=False)
    typer.echo(f"report: {comparison.out / REPORT}")


@app.command()
def simulate(
    method: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(METHODS)}; default cdc.", show_default=False)
    ] = None,
    data: Data = None,
    preset: Preset = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="local (default): this process; fleet: Ray workers; flower: `flwr run .`.",
            show_default=False,
        ),
    ] = Engine.local,
    workers: Annotated[
        int, typer.Option(help="fleet: processes; default one per core.", show_default=False)
    ] = 0,
    ray_address: Annotated[
        str,
        typer.Option(help="fleet: a Ray cluster, host:port or auto; default: its own.", show_default=False),
    ] = "",
    gpu_fraction: Annotated[
        float, typer.Option(help="fleet: of a GPU, per worker; default none.", show_default=False)
    ] = 0.0,
    out: Out = None,
    live: Annotated[bool, typer.Option("--live", help="Show the run as it goes on.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the run in this folder, with its settings; only rounds can be set."),
    ] = None,
    no_pretrain: NoPretrain = False,
    sets: Sets = None,
) -> None:
    """Run one method and write its run folder."""
    of_fleet = {"--workers": workers, "--ray-address": ray_address, "--gpu-fraction": gpu_fraction}
    if engine is not Engine.fleet and any(of_fleet.values()):
        given = ", ".join(name for name, value in of_fleet.items() if value)
        raise ConfigError(f"{given} with --engine {engine.value}; allowed: --engine fleet")
    if resume is None:
        found = {**chosen_settings(data, preset, sets), "run.method": method or "cdc"}
        config = parse(found)
        target = Path(out or config.run.out_dir or f"results/{config.run.method}-{config.run.seed}")
        config = parse({**found, "run.out-dir": str(target.absolute())})
    else:
        config = _resumed(resume, sets, {"method": method, "data": data, "preset": preset, "out": out})

    from cdc_flower import results
    from experiments.report.live import Watch
    from experiments.report.terminal import Screen, share, size
    from experiments.run import pairs, pool
    from experiments.run import simulate as simulating

    pool.silence()
    shown = Watch(target) if live else Screen(1)
    with shown as screen, screen.preparing(f"{config.run.method} · seed {config.run.seed}") as tell:
        pairs.ensure(config, screen.say, tell, not no_pretrain)
        engines = {
            Engine.local: simulating.local,
            Engine.fleet: partial(
                simulating.fleet, workers=workers, ray_address=ray_address, gpu_fraction=gpu_fraction
            ),
            Engine.flower: simulating.flower,
        }
        folder = engines[engine](config, tell, resume is not None)
    run = results.read(folder)
    for domain, accuracy in results.final_accuracy(run.rounds).items():
        typer.echo(f"{domain}: {share(accuracy)} %")
    total = results.totals(run.devices)
    ended = run.devices["status"].value_counts()
    typer.echo(
        f"up {size(total['uplink_bytes'])}, down {size(total['downlink_bytes'])}; of {total['tasks']} "
        f"device-tasks {ended.get('failed', 0)} failed, {ended.get('missing', 0)} had no answer in time"
    )
    typer.echo(f"run folder: {folder}")


def _resumed(folder: Path, sets: list[str] | None, options: dict[str, Any]) -> Any:
    """The config to resume with; `options` are those that a resumed run has from its folder."""
    from experiments.run import simulate as simulating

    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(
            f"--{given[0]} with --resume: a run goes on with its own settings; "
            "allowed: --set run.rounds=N, --engine"
        )
    return simulating.resumed(folder, assignments(sets or []))


class Probe(StrEnum):
    """The part of the method that a probe looks at."""

    uplink = "uplink"
    downlink = "downlink"
    compressions = "compressions"


@app.command()
def probe(
    part: Annotated[
        Probe,
        typer.Argument(
            help="uplink: which tokens tell the teacher most; downlink: which codec loses least; "
            "compressions: whether devices of several can share an adapter."
        ),
    ],
    data: Data = None,
    preset: Preset = None,
    seeds: Annotated[
        int, typer.Option(help="Default 1; from 2 on with 95 % intervals.", show_default=False)
    ] = 1,
    out: Out = None,
    no_pretrain: NoPretrain = False,
    sets: Sets = None,
) -> None:
    """Compare the choices of one part of the method.

    Without training every arm; writes probe.csv.
    """
    config = parse(chosen_settings(data, preset, sets))
    target = (out or Path("results") / f"{config.data.name}-probe-{part}").absolute()

    from rich.console import Console

    from experiments.probes import probe
    from experiments.report.terminal import Screen
    from experiments.run import pairs, pool

    pool.silence()
    with Screen(1) as screen, screen.preparing("pair") as tell:
        pairs.ensure(config, screen.say, tell, not no_pretrain)
        found = probe.run(str(part), config, seeds, tell)
    Console(highlight=False).print(probe.table(found))
    typer.echo(f"rows: {probe.write(found, target)}")


@app.command()
def pretrain(
    data: Data = None,
    preset: Preset = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the pair; default: in the cache, where runs find it.")
    ] = None,
    steps_share: Annotated[
        float,
        typer.Option(help="Share of every stage's steps, for a quick try; default 1.", show_default=False),
    ] = 1.0,
    sets: Sets = None,
) -> None:
    """Train a pair of models for a data pack.

    Tower, teacher and student; the same command goes on where it was stopped.
    """
    config = parse(chosen_settings(data, preset, sets))
    name = config.data.name
    recipe = shortened(RECIPES.get(name, Recipe()), steps_share)

    from experiments.report.terminal import Screen, share
    from experiments.run import pairs, pool

    kept = pairs.folder(name if steps_share == 1 else f"{name}-quick")  # a quick try is no pair to run with
    target = (out or kept).absolute()
    pool.silence()
    with Screen(1) as screen, screen.preparing(f"pair for {name}") as tell:
        card = pairs.train(config, target, recipe, tell)
    for role, scores in card["scores"].items():
        by_domain = ", ".join(f"{domain} {share(value)} %" for domain, value in scores["by_domain"].items())
        typer.echo(f"{role}: {by_domain}")
    found = target == pairs.folder(name).absolute()
    typer.echo(f"pair: {target}" + ("" if found else f"  (use it with --set pair.folder={target})"))


@app.command()
def report(
    folder: Path,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown, too.")] = False,
) -> None:
    """Write the report of a comparison again.

    And its summary.json, from what lies in its folder.
    """
    from experiments.report import page as reporting
    from experiments.report import summary
    from experiments.report import terminal as screen

    comparison = summary.read(folder)
    summary.write_summary(comparison)
    if markdown:
        typer.echo(screen.markdown(comparison))
    typer.echo(f"report: {reporting.write(folder)}")


def main(arguments: list[str] | None = None) -> None:
    """Entry of the `cdc-flower` command; ends the process with its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except ConfigError as err:
        _refuse(str(err), 2)
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        sys.exit(2)
    except click.ClickException as err:
        _refuse(err.format_message(), err.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _stopped()
    except RuntimeError as err:
        from experiments.run.simulate import EngineError

        if not isinstance(err, EngineError):
            raise
        _refuse(str(err), 1)
    else:
        if code == 130:  # how typer returns Ctrl-C
            _stopped()
        sys.exit(code if isinstance(code, int) else 0)


def _stopped() -> None:
    typer.echo("interrupted", err=True)
    sys.exit(130)


def _refuse(message: str, code: int) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
