"""Options that commands share, and how settings come of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cdc_flower.config import parse
from experiments.run import settings

Preset = Annotated[
    str | None, typer.Option(help="Settings by name; default: the preset of the data, or 'none'.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; repeatable.")
]

Data = Annotated[str | None, typer.Option(help='"scenes" (generated) or the folder of a data pack.')]
Out = Annotated[Path | None, typer.Option(help="Folder for the results.")]
NoPretrain = Annotated[
    bool, typer.Option("--no-pretrain", help="Refuse a pack without a pair of models; do not train one.")
]


def chosen_settings(data: str | None, preset: str | None, sets: list[str] | None) -> dict[str, Any]:
    """The checked settings of a command; names the preset that is used on standard error."""
    found, name = settings.resolve(data, preset, sets or [])
    if name not in (None, "none"):
        typer.echo(f"preset {name}: experiments/presets/{name}.toml", err=True)
    parse(found)
    return found
