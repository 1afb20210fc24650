"""Run every method among liars, and compare what honest devices did with a run in which the liars are silent.

`python -m experiments.controls.hostile [--replies 1000000] [--methods static,cdc] [--out FOLDER]`. For each
method two processes run the same settings over a LocalGrid: in one the liars answer with errors, in the other
with the lies of `lies.REFUSED`. Ledger rows of honest devices must be equal, the hostile run must complete,
and its peak memory is told beside the other's. With `--plausible` all lies are told, also those that may be
true; then honest rows may differ, because the cloud may have learned from them."""

from __future__ import annotations

import json
import logging
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

HONEST = 2
SETTINGS = {
    "run.samples-per-round": 4,
    "run.eval-every": 1000,
    "run.min-devices": 1,
    "data.partition": "shared",  # as many devices as are wanted
    "cloud.steps": 1,
    "cloud.batch": 8,
    "cloud.source-replay": 8,
    "fedavg.epochs": 1,
    "fedavg.memory": 64,
    "data.scenes-train": 300,
    "data.scenes-test": 100,
    "data.items-per-domain": 20,
}
"""What the cloud and honest devices compute is small: it is the replies that are tried."""
MEMORY = 1.5  # times the other run's peak
SAME = ("round", "device", "status", "uplink_bytes", "downlink_bytes", "uploaded_samples", "tokens_sent")


def play(settings: Mapping[str, Any], lies: str, seed: int, *, query: bool = False) -> dict[str, Any]:
    """One run in this process whose devices from `HONEST` on lie.

    Args:
        settings: flat.
        lies: "silent", "refused" or "all".
        seed: of the lies.
        query: whether liars also lie about who they are.

    Returns:
        `told` (lie -> how many), `statuses` (of liars' rows -> how many), `honest` (the others' rows),
        `adapter` (digest), `seconds`, and `peak` (bytes of this process's peak memory).
    """
    from flwr.app import Context, RecordDict

    from cdc_flower import results
    from cdc_flower.fleet.engines.local_grid import LocalGrid
    from clients.client_app import app
    from experiments.controls.lies import PLAUSIBLE, REFUSED, Liars
    from strategies.run import run

    logging.getLogger("flwr").setLevel(logging.ERROR)
    kinds = {"silent": SILENT, "refused": REFUSED, "all": {**REFUSED, **PLAUSIBLE}}[lies]
    devices = int(settings["run.devices"])
    liars = Liars(app, range(HONEST, devices), seed, kinds, works=False, query=query)
    grid = LocalGrid(liars, devices, settings)  # type: ignore[arg-type]
    began = time.perf_counter()
    found = results.read(run(grid, Context(1, 1, {}, RecordDict(), dict(settings))))
    honest = found.devices["device"] < HONEST
    return {
        "status": found.status,
        "told": {f"{kind}/{name}": n for (kind, name), n in sorted(liars.told.items())},
        "statuses": found.devices[~honest]["status"].value_counts().to_dict(),
        "honest": found.devices[honest][list(SAME)].to_dict("list"),
        "adapter": found.run["adapter_digest"],
        "seconds": time.perf_counter() - began,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _silent(rng: Any, content: Any) -> Any:
    from flwr.app import Error

    return Error(2, "silent")


SILENT = {"silent": _silent}


def in_a_process(settings: Mapping[str, Any], lies: str, seed: int, limit: int = 0) -> dict[str, Any]:
    """`play` in a process of its own, with an address space of at most `limit` bytes where it is not 0.

    Raises:
        RuntimeError: the process did not end well; the message ends with what it said.
    """
    code = (
        "import json, resource, sys\n"
        "settings, lies, seed, limit = json.load(sys.stdin)\n"
        "if limit: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "from experiments.controls.hostile import play\n"
        "print(json.dumps(play(settings, lies, seed)))"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        input=json.dumps([dict(settings), lies, seed, limit]),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{settings['run.method']} among liars ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def tried(method: str, replies: int, rounds: int, seed: int, lies: str, out: Path) -> dict[str, Any]:
    """One method among liars: about `replies` lies, half of them to TRAIN and half to EVALUATE messages."""
    devices = HONEST + math.ceil(replies / rounds / 2)
    settings = {
        **SETTINGS,
        "run.method": method,
        "run.devices": devices,
        "run.rounds": rounds,
        "run.seed": seed,
    }
    runs = {
        how: in_a_process({**settings, "run.out-dir": str(out / f"{method}-{how}")}, how, seed)
        for how in ("silent", lies)
    }
    silent, lied = runs["silent"], runs[lies]
    return {
        "method": method,
        "status": lied["status"],
        "lies": sum(lied["told"].values()),
        **{name: lied["statuses"].get(name, 0) for name in ("refused", "failed", "ok")},
        "honest rows": "equal" if lied["honest"] == silent["honest"] else "differ",
        "adapter": "equal" if lied["adapter"] == silent["adapter"] else "differs",
        "MB": round(lied["peak"] / 1e6),
        "MB silent": round(silent["peak"] / 1e6),
        "memory": round(lied["peak"] / silent["peak"], 2),
        "s": round(lied["seconds"], 1),
    }


def main(
    replies: Annotated[int, typer.Option(help="Lies in all.", min=1)] = 100_000,
    methods: Annotated[str, typer.Option(help="Of the registry; default: all.")] = "",
    rounds: Annotated[int, typer.Option(help="Of each run.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of runs and lies.")] = 0,
    plausible: Annotated[bool, typer.Option(help="Tell also lies that may be true.")] = False,
    out: Annotated[Path | None, typer.Option(help="A new folder; default: a temporary one.")] = None,
) -> None:
    """Run methods among liars and compare."""
    from strategies.method import names

    target = (out or Path(tempfile.mkdtemp(prefix="hostile-"))).absolute()
    chosen = methods.split(",") if methods else list(names())
    rows = []
    for name in chosen:
        rows.append(
            tried(name, replies // len(chosen), rounds, seed, "all" if plausible else "refused", target)
        )
        typer.echo(json.dumps(rows[-1]))
    table = pd.DataFrame(rows)
    typer.echo(table.to_string(index=False))
    bad = (table["status"] != "completed") | (table["memory"] > MEMORY)
    if not plausible:
        bad |= (table["honest rows"] != "equal") | (table["adapter"] != "equal") | (table["ok"] > 0)
    typer.echo(
        f"{table['lies'].sum()} lies; {len(table) - bad.sum()} of {len(table)} methods held; runs: {target}"
    )
    raise typer.Exit(int(bad.any()))


if __name__ == "__main__":
    typer.run(main)
