"""The commands `cdc-flower fleet ...`: devices, their costs, their hours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cdc_flower.config import ConfigError
from cdc_flower.fleet.settings import FleetConfig
from experiments.cli.checked import App, File, NewFile
from experiments.cli.saying import say
from experiments.report.amounts import amount
from experiments.report.tables import Fitted, show

fleet_app = App(no_args_is_help=True, help="Devices: profiles, costs, availability.")
DEFAULTS = FleetConfig()
SHORT = {
    "flops_fp32": "fp32",
    "flops_fp16": "fp16",
    "flops_int8": "int8",
    "memory_bw": "memory",
    "ram": "RAM",
    "up_bw": "up",
    "down_bw": "down",
    "rtt": "RTT",
    "loss": "loss",
    "idle_power": "idle",
    "compute_power": "busy",
    "radio_power": "radio",
    "battery": "battery",
    "charge_power": "charge",
}
BAR = 24  # characters of a bar that is full

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        click_type=File(),
        metavar="[FILE]...",
        help="Further profiles, such as `cdc-flower calibrate` writes.",
    ),
]


def _profiles(files: list[Path] | None) -> dict[str, Any]:
    """The packaged profiles and those of the files."""
    from cdc_flower.fleet.cost.profiles import read_profiles

    found = read_profiles()
    for file in files or []:
        found |= read_profiles(file)
    return found


@fleet_app.command("profiles")
def profiles(
    files: Files = None,
    sources: Annotated[bool, typer.Option("--sources", help="Also where each figure comes from.")] = False,
) -> None:
    """List the profiles that a mix may name."""
    from cdc_flower.fleet.cost.profiles import UNITS

    known = _profiles(files)
    heads = {f: f"{SHORT[f]}\n{UNITS[f]}" for f in UNITS}
    rows = [(p.name, p.device_class, *(_figure(f, getattr(p, f)) for f in UNITS)) for p in known.values()]
    spare = "class", *(heads[f] for f in ("loss", "flops_fp16", "charge_power", "rtt", "radio_power"))
    show(Fitted(("profile", "class", *heads.values()), rows, spare, left=("class",)))
    if sources:
        for p in known.values():
            say(f"{p.name}")
            for figure in UNITS:
                say(f"  {figure}: {p.sources[figure]}")


def _figure(name: str, value: float | None) -> str:
    return f"{value:.3g}" if name == "loss" else amount(value)


@fleet_app.command("costs")
def costs(
    files: Files = None,
    rank: Annotated[
        int, typer.Option(min=0, max=1024, help="Of the adapter; default 16.", show_default=False)
    ] = 16,
    text: Annotated[
        int | None, typer.Option(min=1, max=10**6, help="Positions of prompt and question; default 50.")
    ] = None,
    answer: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Tokens of an answer, its end among them; default 8.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
) -> None:
    """What one question costs each profile with each cost model: compression that fits, seconds, joules."""
    import json

    from cdc_flower.fleet.cost import cost_models, roofline

    student = Path(cost_models.__file__).parents[2] / "weights" / "scenes" / "student" / "config.json"
    models = {"scenes (own)": json.loads(student.read_text(encoding="utf-8")), **cost_models.table()}
    shapes = {name: roofline.shapes(config, rank) for name, config in models.items()}
    rows = []
    for profile in _profiles(files).values():
        found = (
            cost_models.of_a_question(profile, s, text or cost_models.TEXT, answer or cost_models.ANSWER)
            for s in shapes.values()
        )
        rows.append(
            [
                profile.name,
                *(
                    "too big"
                    if c is None
                    else f"{c.compression}, {amount(c.seconds, 's')}, {amount(c.joules, 'J')}"
                    for c in found
                ),
            ]
        )
    if markdown:
        lines = [("profile", *models), ("---", *["---"] * len(models)), *rows]
        typer.echo("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return
    lines = [[row[0], *(cell.replace(", ", ",\n", 1) for cell in row[1:])] for row in rows]
    show(Fitted(("profile", *models), lines, tuple(models)[:0:-1]))
    say("a cell: compression of the weights (none = as they are), seconds, joules of one question")


# --- traces -------------------------------------------------------------------------------------------------


@fleet_app.command("trace")
def trace(
    file: Annotated[
        Path | None,
        typer.Argument(
            click_type=File(), help="A trace to read and check, .parquet or .json.", show_default=False
        ),
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, max=10**7, help="Generate a trace of so many devices; of a FILE: how many it must have."
        ),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=366, help="Its period; default 2.")] = None,
    mix: Annotated[
        str | None, typer.Option(help='Profiles, "pi4=40%,pi5=60%"; default: that of the setting.')
    ] = None,
    zones: Annotated[
        str | None, typer.Option(help='Offsets from UTC in hours, "-8,0,8"; default "0".')
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Default 0.")] = None,
    out: Annotated[
        Path | None, typer.Option(click_type=NewFile(), help="Write it there, .parquet or .json.")
    ] = None,
) -> None:
    """Read or generate an availability trace, say what is in it, and convert it."""
    from cdc_flower.fleet.cost import mixes
    from cdc_flower.fleet.time import availability, trace_files
    from cdc_flower.fleet.time.traces import DAY

    if out is not None:
        trace_files.check_ending(out)
    made = {"--days": days, "--mix": mix, "--zones": zones, "--seed": seed}
    if file is not None:
        for option, value in made.items():
            if value is not None:
                raise ConfigError(f"{option} {value}: the trace of '{file}' is there; allowed: without FILE")
        found = trace_files.read_trace(file, devices)
    elif devices is None:
        raise ConfigError("fleet trace: no FILE; allowed: a FILE to read, or --devices N to generate one")
    else:
        fleet = mixes.fleet(mix or DEFAULTS.mix, devices, seed or 0)
        found = availability.generate(
            fleet.classes, seed or 0, days or DEFAULTS.trace_days, _zones(zones or DEFAULTS.zones)
        )
    if out is not None:
        trace_files.write_trace(out, found)
    intervals = len(found.start)
    say(
        f"{len(found)} devices, {found.period / DAY:g} days, {intervals} intervals, online "
        f"{found.online_per_period.mean() / found.period:.1%} of the time"
    )
    show(_hours(found))
    if out is not None:
        say(f"trace: {out}")


def _zones(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--zones {text!r}; allowed: offsets from UTC in hours, such as '-8,0,8'") from None


def _hours(found: Any) -> Any:
    """Share of the devices online, and of those that also charge and are left alone, by hour of the day."""
    import numpy as np

    rows = []
    days = max(1, round(found.period / 86_400))
    looked_at = np.linspace(0, days - 1, min(days, 30)).astype(int).tolist()
    quarters = np.arange(4) * 900 + 450  # s, the middle of each quarter of an hour
    for hour in range(24):
        times = [day * 86_400 + hour * 3600 + q for day in looked_at for q in quarters]
        online, charging, idle, both = (
            float(np.mean([found.suitable(t, c, i).mean() for t in times]))
            for c, i in ((False, False), (True, False), (False, True), (True, True))
        )
        dark, light = round(BAR * both), round(BAR * online) - round(BAR * both)
        shares = (f"{share:.0%}" for share in (online, charging, idle, both))
        rows.append((f"{hour:02d}", *shares, "█" * dark + "░" * light))
    heads = ("hour UTC", "online", "charging", "idle", "all three", "online (all three dark)")
    return Fitted(heads, rows, left=heads[-1:])
