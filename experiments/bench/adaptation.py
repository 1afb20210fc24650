"""What one adaptation costs: CPU milliseconds of the cloud on one thread and bytes down, in rounds of `mmpg`.

One device plays some rounds. What is timed is all that the cloud does with its reply: it reads the frame,
reconstructs clips, makes the summary, generates the adapter and codes it; bytes are those of the message that
brings it, with its envelope. The hypernetwork is trained before, once, and is not counted.

    python -m experiments.bench.adaptation [--preset clips] [--set mmpg.frames=8] [--rounds 20] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from rich.console import Console

from cdc_flower.config import Config, ConfigError, flat, parse
from cdc_flower.fleet.engines.local_grid import LocalGrid
from clients import client_app
from experiments.bench.figures import Figure, figure, host, table, write
from experiments.run.settings import assignments, preset
from strategies.mmpg import Mmpg
from strategies.run import prepare

MILLISECONDS, BYTES = 50.0, 20_000.0
SETTINGS = {"run.method": "mmpg", "run.devices": 1, "run.cohort": 1.0, "run.checkpoint-every": 0}


class Watched(Mmpg):
    """`mmpg`, with the CPU seconds of each round."""

    spent: list[float]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As `Mmpg`, timed."""
        came = list(replies)  # the device works here
        began = time.process_time()
        found = super().aggregate_train(server_round, came)
        self.spent.append(time.process_time() - began)
        return found


def measure(config: Config) -> tuple[list[float], list[int]]:
    """CPU milliseconds of each adaptation, and bytes of the messages that brought them."""
    played = Watched.build(prepare(config))
    played.spent = []
    with TemporaryDirectory() as folder:
        grid = LocalGrid(client_app.app, 1, {**flat(config), "run.out-dir": folder})
        start, rounds = played.initial_arrays(), config.run.rounds
        played.start(grid, start, num_rounds=rounds, timeout=config.run.round_timeout)
    down = played.fleet.ledger.frame()["downlink_bytes"].tolist()
    return [1000 * s for s in played.spent], [int(size) for size in down[1:]]  # the first brings nothing


def figures(config: Config) -> list[Figure]:
    """The median milliseconds and the most bytes, beside what they may be."""
    spent, down = measure(config)
    return [
        figure("CPU ms of an adaptation, median", float(np.median(spent)), MILLISECONDS, "<= 1"),
        figure("CPU ms of an adaptation, most", max(spent), MILLISECONDS),
        figure("bytes down of an adaptation, most", max(down), BYTES, "<= 1"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 1 where one misses its target."""
    parser = argparse.ArgumentParser(description="What one generated adapter costs the cloud and the link.")
    parser.add_argument("--preset", default="clips")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=None)
    own = parser.parse_args(arguments)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    try:
        changes: dict[str, Any] = assignments(own.changes)
        config = parse({**preset(own.preset), **SETTINGS, **changes, "run.rounds": own.rounds})
        found = figures(config)
    except ConfigError as err:
        sys.stderr.write(f"error: {err}\n")
        return 2
    console = Console(highlight=False)
    console.print(host(), markup=False)
    console.print(table(found))
    write(found, own.out, "bench-adaptation.json")
    return 0 if all(f.ok for f in found) else 1


if __name__ == "__main__":
    sys.exit(main())
