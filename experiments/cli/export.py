"""`cdc-flower export` and `cdc-flower families`: what comes out of a run, and what models can go in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.checked import Folder, NewFolder
from experiments.cli.saying import say
from experiments.cli.settings import Json
from experiments.report.tables import Fitted, show


def export(
    run: Annotated[
        Path, typer.Argument(click_type=Folder(), help="A run folder, such as results/demo/runs/cdc-0.")
    ],
    out: Annotated[Path, typer.Argument(click_type=NewFolder(), help="Folder to write.")],
    device: Annotated[
        int | None,
        typer.Option(min=0, max=10**7, help="Whose adapter; default: the newest.", show_default=False),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="One checkpoint of plain weights.")] = False,
) -> None:
    """Write the adapted student of a run.

    A folder for peft (adapter, projector, norms), or with --merge a whole checkpoint for transformers.
    """
    from cdc_flower.models import export as exporting

    say(f"{'merged student' if merge else 'adapter'}: {exporting.export(run, out, device, merge)}")


def families(as_json: Json = False) -> None:
    """List the families of models that can be a pair."""
    from cdc_flower.models.families import FAMILIES
    from strategies.checks import units

    rows = [
        {
            "name": name,
            "class": family.model_class.__name__,
            "checkpoints": family.checkpoints,
            "tap": family.tap,
            "tokens": "a number of each picture's own" if family.varies else "as many of every picture",
            "units": units(name),
            "notes": family.notes,
        }
        for name, family in FAMILIES.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    heads = ("family", "checkpoints", "a token is", "tokens", "units", "notes")
    cells = [
        (row["name"], row["checkpoints"], row["tap"], row["tokens"], ", ".join(row["units"]), row["notes"])
        for row in rows
    ]
    show(Fitted(heads, cells, ("notes", "tokens", "units"), wraps=heads[1:]))
