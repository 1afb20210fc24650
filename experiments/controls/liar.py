"""One liar among the devices of a deployment, with and without the doorkeeper.

`python -m experiments.controls.liar [--kind huge] [--devices 4] [--rounds 4] [--out FOLDER]` provisions a
cloud and devices on this machine, over TLS and with keys, the last of them a liar of that kind
(`clients.poisons`), lets it do its rounds with `cloud.doorkeeper` off, and again with it on. Prints as
Markdown how right the student is after the last round, what was taken of the liar and of the others, and why
the rest was dropped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cdc_flower import results
from cdc_flower.data.world import load_world
from cdc_flower.models.adapted import adapted
from cdc_flower.rules import POISONS
from experiments.controls.deployed import deployment
from experiments.controls.poisoning import DONE, right, taken
from experiments.run.processes import until
from strategies.accuracy import accuracy

SETTINGS: Mapping[str, Any] = {
    "run.receipts": True,
    "run.checkpoint-every": 1,
    "run.samples-per-round": 16,
    "data.items": "tuning",
    "data.items-per-domain": 100,
    "cloud.source-replay": 500,
    "cloud.batch": 48,
}
"""Of both deployments, beside how many devices and rounds there are."""
WHY = ("strange", "twice", "beyond", "unheard")
LONG = 1800.0  # s, for a deployment to come to its end


def deployed(kind: str, doorkeeper: str, devices: int, rounds: int, folder: Path) -> dict[str, float]:
    """Let a deployment do its rounds, if none did in this folder; accuracies and what was taken."""
    settings = {
        **SETTINGS,
        "run.rounds": rounds,
        "run.poison-devices": f"{devices - 1}:{kind}",
        "cloud.doorkeeper": doorkeeper,
    }
    if not (folder / DONE).exists():
        with deployment(folder) as fleet:
            fleet.provision(devices, settings, {"last_round": rounds, "least": devices})
            fleet.start()
            until(lambda: not fleet.cloud.runs, LONG, "the cloud does its last round", fleet.programs)
        (folder / DONE).touch()
    run = folder / "cloud" / "run"
    return {**right(judged(run)), **taken(results.read(run), [devices - 1])}


def judged(run: Path) -> dict[str, float]:
    """Domain -> accuracy of the newest adapter of a cloud."""
    found = adapted(run)
    return accuracy(found.model, found.shared, load_world(found.config, found.shared))


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown of doorkeeper -> figures."""
    heads = ["doorkeeper", "drift", "source", "taken of the liar", "of the others", *WHY]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for door, of in rows.items():
        dropped = (f"{of.get(f'dropped_{why}', 0.0):.0f}" for why in WHY)
        cells = [f"{of['drift']:.1f}", f"{of['source']:.1f}", f"{of['liars']:.0f}", f"{of['honest']:.0f}"]
        lines.append(f"| {' | '.join([door, *cells, *dropped])} |")
    return "\n".join(lines)


def main(
    kind: Annotated[str, typer.Option(help="Of harm.")] = "huge",
    devices: Annotated[int, typer.Option(min=2, max=50, help="How many; the last lies.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Of each deployment.")] = 4,
    out: Annotated[Path | None, typer.Option(help="For both deployments, new; default: temporary.")] = None,
) -> None:
    """Deploy twice, and print what came of it."""
    if kind not in POISONS:
        raise typer.BadParameter(f"'{kind}'; allowed: {', '.join(POISONS)}", param_hint="--kind")
    whole = (out or Path(tempfile.mkdtemp(prefix="liar-"))).absolute()
    rows = {}
    for door in ("off", "on"):
        rows[door] = deployed(kind, door, devices, rounds, whole / door)
        typer.echo(f"doorkeeper {door}: {rows[door]}", err=True)
    typer.echo(table(rows))


if __name__ == "__main__":
    typer.run(main)
