"""Options that commands share, and how settings come of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cdc_flower import plugins
from cdc_flower.config import Config, parse
from experiments.cli.checked import NewFolder
from experiments.cli.saying import say
from experiments.run import settings

MOST_WORKERS = max(16, 4 * (os.cpu_count() or 1))
"""Processes beyond which a host only loses time."""

Preset = Annotated[
    str | None, typer.Option(help="Settings by name; default: the preset of the data, or 'none'.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; repeatable.")
]

Data = Annotated[
    str | None, typer.Option(help='"scenes" or "clips" (generated), or the folder of a data pack.')
]
Out = Annotated[Path | None, typer.Option(click_type=NewFolder(), help="Folder for the results.")]
NoPretrain = Annotated[
    bool, typer.Option("--no-pretrain", help="Refuse a pack without a pair of models; do not train one.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, max=MOST_WORKERS, help="Processes; 0 = in this one; default one per core."),
]

NoPlan = Annotated[
    bool, typer.Option("--no-plan", help="Try what `plan` says does not fit into this machine.")
]


def named(methods: str) -> tuple[str, ...]:
    """The names of a comma list of methods; one that is of none is refused before anything is loaded."""
    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    for name in names:
        plugins.refuse_unknown(plugins.METHODS, "method", name)
    return names


def chosen_settings(data: str | None, preset: str | None, sets: list[str] | None) -> dict[str, Any]:
    """The checked settings of a command; names the preset that is used on standard error."""
    return chosen(data, preset, sets)[0]


def chosen(data: str | None, preset: str | None, sets: list[str] | None) -> tuple[dict[str, Any], str | None]:
    """`chosen_settings`, and the name of the preset."""
    found, name = settings.resolve(data, preset, sets or [])
    if name not in (None, "none"):
        say(f"preset {name}: experiments/presets/{name}.toml", err=True)
    checked(found)
    return found, name


def checked(found: Mapping[str, Any]) -> Config:
    """The config of settings, refused where something that they name is not there."""
    from strategies.checks import check_named

    config = parse(found)
    check_named(config)
    return config
