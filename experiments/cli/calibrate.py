"""`cdc-flower calibrate`: this machine as a profile of a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cdc_flower.border import no_file
from cdc_flower.config import ConfigError
from experiments.cli.checked import NewFile
from experiments.cli.saying import say
from experiments.report.tables import Fitted, show


def calibrate(
    out: Annotated[
        Path | None, typer.Option(click_type=NewFile(), help="Profile file; default NAME.json.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the profile; default here.", show_default=False)] = "here",
    like: Annotated[
        str, typer.Option(help="Profile for what is not measured; default minipc.", show_default=False)
    ] = "minipc",
    up: Annotated[float | None, typer.Option(min=0, max=1e6, help="Mbit/s to the cloud.")] = None,
    down: Annotated[float | None, typer.Option(min=0, max=1e6, help="Mbit/s from the cloud.")] = None,
    rtt: Annotated[float | None, typer.Option(min=0, max=1e6, help="Round trip to the cloud, ms.")] = None,
    loss: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of packets lost, 0 to below 1.")
    ] = None,
    idle_watts: Annotated[
        float | None, typer.Option(min=0, max=1e6, help="Of the whole device, doing nothing for us.")
    ] = None,
    compute_watts: Annotated[
        float | None, typer.Option(min=0, max=1e6, help="Of the whole device, computing.")
    ] = None,
    radio_watts: Annotated[
        float | None, typer.Option(min=0, max=1e6, help="Of the whole device, transferring.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, max=1024, help="Of torch; default: as it has them.", show_default=False)
    ] = 0,
    accelerator: Annotated[bool, typer.Option("--accelerator", help="The CUDA device, not the CPU.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Also answer questions and compare with the prediction.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds instead of a minute; rough.")] = False,
) -> None:
    """Measure this machine and write its profile, for a mix."""
    from cdc_flower.fleet.cost.profiles import UNITS, read_profiles, write_profiles
    from experiments.bench import calibrate as calibrating
    from experiments.report.amounts import amount

    if accelerator and check:
        raise ConfigError(
            "--accelerator and --check; allowed: one of them, questions are answered on the CPU"
        )
    known = read_profiles()
    if like not in known:
        raise ConfigError(f"--like {like!r}; allowed: {', '.join(known)}")
    scaled = {
        "up_bw": (up, 1e6),
        "down_bw": (down, 1e6),
        "rtt": (rtt, 1e-3),
        "loss": (loss, 1),
        "idle_power": (idle_watts, 1),
        "compute_power": (compute_watts, 1),
        "radio_power": (radio_watts, 1),
    }
    given = {figure: value * unit for figure, (value, unit) in scaled.items() if value is not None}
    target = out or Path(f"{name}.json")
    if wrong := no_file(target):
        raise ConfigError(f"--name {name!r}: '{target}': {wrong}")
    replace(known[like], name=name, **given)  # refuses what is out of its range before a minute is spent
    measured = calibrating.measure(threads, accelerator, quick)
    found = calibrating.profile(name, measured, known[like], given)
    write_profiles(target, [found])
    rows = [
        (figure, amount(getattr(found, figure), UNITS[figure]), found.sources[figure]) for figure in UNITS
    ]
    show(Fitted(("figure", "value", "source"), rows, wraps=("source",)))
    if check:
        compared = [
            (
                row.model,
                row.compression,
                str(row.questions),
                amount(row.measured, "s"),
                amount(row.predicted, "s"),
                f"{row.ratio:.3g}",
            )
            for row in calibrating.check(found, threads, quick)
        ]
        heads = ("model", "compression", "questions", "measured", "predicted", "ratio")
        show(Fitted(heads, compared, wraps=("model",)))
    say(f"profile: {target}")
    say(
        f"use it: --set fleet.mix=FILE.toml, with these lines in FILE.toml beside it:\n"
        f'profiles = ["{target.name}"]\n[mix]\n{name} = 100'
    )
