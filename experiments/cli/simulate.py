"""`cdc-flower simulate`: one run of one method, on an engine of choice."""

from __future__ import annotations

import shlex
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cdc_flower import plugins
from cdc_flower.config import ConfigError, parse
from cdc_flower.lock import refuse_if_taken
from experiments.cli.checked import Folder, goes_on, program, typed, written
from experiments.cli.options import (
    Data,
    NoPlan,
    NoPretrain,
    Out,
    Preset,
    Sets,
    checked,
    chosen_settings,
    named,
)
from experiments.cli.saying import say
from experiments.run.machine import cores
from experiments.run.settings import assignments


class Engine(StrEnum):
    """Where a simulation runs."""

    local = "local"
    fleet = "fleet"
    flower = "flower"


def simulate(
    method: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(plugins.names(plugins.METHODS))}; default cdc.", show_default=False
        ),
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
        int,
        typer.Option(min=0, max=10**4, help="fleet: processes; default one per core.", show_default=False),
    ] = 0,
    ray_address: Annotated[
        str,
        typer.Option(help="fleet: a Ray cluster, host:port or auto; default: its own.", show_default=False),
    ] = "",
    gpu_fraction: Annotated[
        float,
        typer.Option(min=0, max=1, help="fleet: of a GPU, per worker; default none.", show_default=False),
    ] = 0.0,
    out: Out = None,
    live: Annotated[bool, typer.Option("--live", help="Show the run as it goes on.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            click_type=Folder(),
            help="Go on with the run in this folder, with its settings; only rounds can be set.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Begin anew where another run is, or an unfinished one.")
    ] = False,
    no_pretrain: NoPretrain = False,
    no_plan: NoPlan = False,
    sets: Sets = None,
) -> None:
    """Run one method and write its run folder."""
    of_fleet = {"--workers": workers, "--ray-address": ray_address, "--gpu-fraction": gpu_fraction}
    if engine is not Engine.fleet and any(of_fleet.values()):
        given = ", ".join(name for name, value in of_fleet.items() if value)
        raise ConfigError(f"{given} with --engine {engine.value}; allowed: --engine fleet")
    if not ray_address and workers > cores():
        raise ConfigError(f"--workers {workers}; allowed: up to {cores()}, the cores of this host")
    if resume is not None and replace:
        raise ConfigError("--resume and --replace; allowed: one of them")
    if resume is None:
        asked = assignments(sets or [])
        for option, value, key in (("--method", method, "run.method"), ("--out", out, "run.out-dir")):
            if value is not None and key in asked:
                raise ConfigError(f"{option} and --set {key}; allowed: one of them")
        named(method or "")
        found = chosen_settings(data, preset, sets) | ({} if method is None else {"run.method": method})
        config = checked(found)
        target = Path(out or config.run.out_dir or f"results/{config.run.method}-{config.run.seed}")
        config = parse({**found, "run.out-dir": str(target.absolute())})
    else:
        config = _resumed(resume, sets, {"method": method, "data": data, "preset": preset, "out": out})
        target = resume

    from cdc_flower import results
    from cdc_flower.tasks import task_of
    from experiments.report.amounts import size
    from experiments.report.live import Watch
    from experiments.report.terminal import Terminal, share
    from experiments.run import pairs, pool
    from experiments.run import plan as planning
    from experiments.run import simulate as simulating

    if resume is None:
        for place in (target, simulating.home_of(target)) if engine is Engine.flower else (target,):
            refuse_if_taken(place)
        simulating.refuse_something_else(target.absolute(), simulating.is_run, "that of an earlier run")
        if not replace:
            simulating.refuse_what_is_in(target.absolute(), config)
    if not no_plan and not ray_address:  # the workers of a cluster are on other machines
        how = planning.Engine(engine.value, 1 if engine is Engine.local else workers or cores())
        planning.check({config.run.method: config}, how, 1)
    pool.silence()
    shown = Watch(target) if live else Terminal(1)
    held = simulating.claimed(target, engine is Engine.flower)
    before = None if resume else written(target / "config.json")
    kept = goes_on(lambda: _kept(target, engine, before))
    with (
        kept,
        held,
        shown as terminal,
        terminal.preparing(f"{config.run.method} · seed {config.run.seed}") as tell,
    ):
        pairs.ensure(config, terminal.say, tell, not no_pretrain)
        if note := pairs.hardly_trained(config):
            terminal.say(f"note: {note}")
        pairs.tell_unlike([config], terminal.say)
        engines = {
            Engine.local: simulating.local,
            Engine.fleet: partial(
                simulating.fleet, workers=workers, ray_address=ray_address, gpu_fraction=gpu_fraction
            ),
            Engine.flower: simulating.flower,
        }
        folder = engines[engine](config, tell, resume is not None)
    run = results.read(folder)
    say("held-out items, after the last round:")
    for domain, accuracy in results.final_accuracy(run.rounds).items():
        say(f"{domain}: {share(accuracy)} {task_of(run.config).shown}")
    total = results.totals(run.devices)
    ended = run.devices["status"].value_counts()
    say(
        f"up {size(total['uplink_bytes'])}, down {size(total['downlink_bytes'])}; of {total['tasks']} "
        f"device-tasks {ended.get('failed', 0)} failed, {ended.get('refused', 0)} were refused, "
        f"{ended.get('missing', 0)} had no answer in time"
    )
    say(f"run folder: {folder}")


def _kept(folder: Path, engine: Engine, before: int | None) -> str:
    """What a run leaves that is interrupted, and how it goes on.

    Args:
        folder: of the run.
        engine: that it was on.
        before: when an earlier run began in the folder, see `written`; None = this run goes on with that one.
    """
    from experiments.run import simulate as simulating

    begun = before is None or written(folder / "config.json") != before
    done = simulating.rounds_done(folder) if begun else 0
    if not done:
        return "no round was done yet; give the same command again"
    rounds = f"{'1 round is' if done == 1 else f'{done} rounds are'} in '{folder}'"
    if engine is Engine.flower:
        return f"{rounds}; Flower's engine cannot go on with it"
    if before is None:
        return f"{rounds}; this goes on:\n{typed()}"
    on = "" if engine is Engine.local else f" --engine {engine.value}"
    return f"{rounds}; this goes on:\n{program()} simulate --resume {shlex.quote(str(folder))}{on}"


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
