"""`cdc-flower plan`: memory, bytes and seconds of a command, before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cdc_flower.config import ConfigError, parse
from experiments.cli.options import Data, Preset, Sets, Workers, chosen_settings, named
from experiments.cli.saying import say
from experiments.report.tables import Fitted, show

Json = Annotated[bool, typer.Option("--json", help="For programs.")]

SPARE = ("libraries", "ledger", "optimiser", "count", "tokens", "data")  # columns that go first


def plan(
    data: Data = None,
    preset: Preset = None,
    methods: Annotated[
        str | None, typer.Option(help="Comma list, as of compare; default: all.", show_default=False)
    ] = None,
    engine: Annotated[
        str, typer.Option(help="compare (default); or of simulate, for one method: local, fleet, flower.")
    ] = "compare",
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="As of compare.")] = 1,
    workers: Workers = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Say what compare or simulate will take: memory, bytes, seconds; nothing is loaded or computed."""
    names = list(named(methods or ""))

    from cdc_flower.models.compressions import preflight
    from experiments.run import pairs
    from experiments.run import plan as planning
    from strategies.method import method
    from strategies.method import methods as installed

    if engine not in ("compare", "local", "fleet", "flower"):
        raise ConfigError(f"--engine {engine}; allowed: compare, local, fleet, flower")
    settings = chosen_settings(data, preset, sets)
    if engine == "compare":
        names = names or list(installed())
    else:
        names = names or [parse(settings).run.method]
        if len(names) > 1:
            raise ConfigError(f"--methods {methods} with --engine {engine}; allowed: one method")
    configs = {name: parse({**settings, "run.method": method(name).name}) for name in names}
    pairs.tell_unlike(configs.values(), lambda line: say(line, err=True))
    preflight(next(iter(configs.values())).pair.compression)
    how = planning.Engine(engine, planning.cores() if workers is None else workers)
    jobs = seeds * len(configs)
    machine = planning.Machine.here(planning.on_gpu(configs))
    known = planning.Known()
    made = planning.make(configs, how, jobs, known=known)
    lacks = made.lacks(machine)
    helps = planning.remedy(configs, how, jobs, machine, known) if lacks else ""
    if as_json:
        typer.echo(json.dumps(_written(made, machine, lacks, helps), indent=1))
        return
    _show(made, machine, lacks, helps)


def _memory(of: Any) -> dict[str, Any]:
    return {
        place: {k: round(v) for k, v in dataclasses.asdict(need).items()} | {"total": round(need.total)}
        for place, need in (("ram", of.ram), ("vram", of.vram))
    }


def _written(made: Any, machine: Any, lacks: str, helps: str) -> dict[str, Any]:
    from cdc_flower.plan import traffic

    arms = {}
    for arm, run in made.runs.items():
        moved = traffic.bytes_of_a_round(run)
        arms[arm] = {
            "device": _memory(made.device[arm]),
            "cloud": _memory(made.cloud[arm]),
            "uplink_bytes": moved.up,
            "downlink_bytes": moved.down,
            "advice": traffic.advice(run),
            "seconds": [
                {
                    "profile": s.profile,
                    "compression": s.compression or None,
                    **({"work": s.work, "up": s.up, "down": s.down} if s.compression else {}),
                }
                for s in traffic.seconds_of_a_round(run)
            ],
        }
    return {
        "arms": arms,
        "processes": [{"name": p.name, "count": p.count, **_memory(p.memory)} for p in made.processes],
        "ram": round(made.ram),
        "vram": round(made.vram),
        "unsure": made.unsure,
        "free": {"ram": round(machine.ram), "vram": round(machine.vram)},
        "lacks": lacks or None,
        "remedy": helps or None,
    }


Row = tuple[str, ...]


def alike(rows: Mapping[str, Row]) -> list[Row]:
    """Rows by name -> the different ones, each behind all names that have it: "cdc, tent"."""
    names: dict[Row, list[str]] = {}
    for name, row in rows.items():
        names.setdefault(row, []).append(name)
    return [(", ".join(who), *row) for row, who in names.items()]


def _show(made: Any, machine: Any, lacks: str, helps: str) -> None:
    from cdc_flower.plan import traffic
    from cdc_flower.plan.memory import PURPOSES
    from experiments.report.amounts import amount, size

    def parts(need: Any) -> Row:
        return size(need.total), *(size(v) if v else "-" for v in map(vars(need).get, PURPOSES))

    memory: list[Row] = []
    for process in made.processes:
        name, count = process.name, str(process.count)
        memory.append((name, count, *parts(process.memory.ram)))
        if process.memory.vram.total:
            memory.append((f"{name}, GPU", count, *parts(process.memory.vram)))
    for role, of in (("a device", made.device), ("the cloud", made.cloud)):
        needs = {arm: parts(one.ram) for arm, one in of.items()}
        needs |= {f"{arm} on the GPU": parts(one.vram) for arm, one in of.items() if one.vram.total}
        memory += [(f"{role}, {arms}", "", *row) for arms, *row in alike(needs)]
    show(Fitted(("memory", "count", "each", *PURPOSES), memory, SPARE, wraps=("memory",)), "")
    profiles = [s.profile for s in traffic.seconds_of_a_round(next(iter(made.runs.values())))]
    takes: dict[str, Row] = {}
    for arm, run in made.runs.items():
        moved = traffic.bytes_of_a_round(run)
        seconds = [
            f"{amount(s.total, 's')}\n{s.compression}" if s.compression else "too\nbig"
            for s in traffic.seconds_of_a_round(run)
        ]
        takes[arm] = (size(moved.up), size(moved.down), *seconds)
    heads = ("a device,\na round", "up,\nat most", "down,\nat most", *profiles)
    show(Fitted(heads, alike(takes), tuple(reversed(profiles)), wraps=heads[:1]), "")
    for line in sorted({line for run in made.runs.values() for line in traffic.advice(run)}):
        show(f"note: {line}")
    gpu = f", GPU {size(made.vram)} of {size(machine.vram)} free" if made.vram else ""
    show(
        f"together: RAM {size(made.ram)} of {size(machine.ram)} free{gpu}; "
        f"measurements differ by up to {made.unsure:.0%}"
    )
    if lacks:
        show(f"does not fit: {lacks}; {helps or 'no setting makes it fit: smaller models, a larger machine'}")
    else:
        say("fits")
