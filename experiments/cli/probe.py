"""`cdc-flower probe`: the choices of one part of the method, without training every arm."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cdc_flower.config import ConfigError, flat, parse
from experiments.cli.options import Data, NoPretrain, Out, Preset, Sets, chosen_settings
from experiments.cli.saying import say
from experiments.report.tables import show

QUICK = ("inversion", "anchors")  # parts that can be tried


class Probe(StrEnum):
    """The part of the method that a probe looks at."""

    uplink = "uplink"
    downlink = "downlink"
    compressions = "compressions"
    inversion = "inversion"
    membership = "membership"
    anchors = "anchors"


def probe(
    part: Annotated[
        Probe,
        typer.Argument(
            metavar="PART",
            help="uplink: which tokens tell the teacher most; downlink: which codec loses least; "
            "compressions: whether devices of several can share an adapter; "
            "inversion: what uploaded tokens show of a picture; "
            "membership: whether an update tells which samples it was learned from; "
            "anchors: what few frames of a clip tell of all of it.",
        ),
    ],
    data: Data = None,
    preset: Preset = None,
    seeds: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Default 1; from 2 on with 95 % intervals.", show_default=False),
    ] = 1,
    out: Out = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="inversion, anchors: a try of seconds, whose figures are worth nothing."
        ),
    ] = False,
    no_pretrain: NoPretrain = False,
    sets: Sets = None,
) -> None:
    """Compare the choices of one part of the method.

    Without training every arm; writes probe.csv.
    """
    config = parse(chosen_settings(data, preset, sets))
    parse({**flat(config), "run.seed": config.run.seed + seeds - 1})  # the last is a seed, too
    if quick and part not in QUICK:
        raise ConfigError(f"--quick with probe {part}; allowed: {', '.join(QUICK)}")
    target = (out or Path("results") / f"{config.data.name}-probe-{part}").absolute()

    from experiments.probes import probe
    from experiments.report.terminal import Terminal
    from experiments.run import pairs, pool

    pool.silence()
    with Terminal(1) as terminal, terminal.preparing("pair") as tell:
        pairs.ensure(config, terminal.say, tell, not no_pretrain)
        found = probe.run(str(part), config, seeds, tell, quick)
    table, write = probe.shown(str(part))
    show(table(found))
    say(f"rows: {write(found, target)}")
