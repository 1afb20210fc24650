"""How fast virtual time passes: a day of a large fleet, without learning, in both paces.

`python -m experiments.bench.fleet_speed` plays 24 hours of 10,000 generated devices and prints, for each
pace, the events (a phase of a task that ends, a device that comes, leaves, is plugged in or out) and events
a second of this process's CPU time. The target is 1e5. Work and bytes of a task are made up; nothing
is trained.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np
from rich.console import Console

from cdc_flower.fleet.cost.profiles import Devices, fleet
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.time import clock
from cdc_flower.fleet.time.availability import generate
from cdc_flower.fleet.time.traces import DAY, Trace

DOWN, UP, WORK = 12_000.0, 20_000.0, 120.0  # bytes, bytes, mean seconds of a task


def play(devices: Devices, trace: Trace, config: FleetConfig, wanted: int) -> Iterator[clock.Report]:
    """Rounds until a day has passed."""
    state = clock.start(devices)
    while state.now < DAY:
        number = state.round + 1
        free = config.in_flight - len(state.pending) if config.mode == "async" else wanted
        asked = clock.ask(clock.candidates(state, devices, trace, config), free, config, 0, number)
        work = np.random.default_rng(number).exponential(WORK, len(asked))
        full = np.ones(len(asked))
        tasks = clock.Tasks(asked, DOWN * full, work, UP * full)
        state, report = clock.play(state, tasks, wanted, devices, trace, config)
        yield report


def measure(count: int) -> dict[str, tuple[int, float]]:
    """Pace -> (events, seconds of CPU time) of a day of `count` devices, a tenth of them wanted at a time."""
    wanted = max(1, count // 10)
    devices = fleet(FleetConfig().mix, count, 0)
    trace = generate(devices.classes, 0, 1)
    changes = len(trace.changes(0, DAY)[0]) + len(trace.changes(0, DAY, need_charging=True)[0])
    found = {}
    for mode in ("sync", "async"):
        over = 1.3 if mode == "sync" else 1.0
        config = FleetConfig(mode=mode, in_flight=wanted, buffer=max(1, wanted // 10), over_selection=over)
        begun = time.process_time()
        tasks = sum(len(report.device) for report in play(devices, trace, config, wanted))
        found[mode] = (3 * tasks + changes, time.process_time() - begun)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    console = Console(file=sys.stdout, highlight=False)
    for mode, (events, seconds) in measure(parser.parse_args().devices).items():
        console.print(f"{mode}: {events:,} events in {seconds:.2f} s: {events / seconds:,.0f} events/s")


if __name__ == "__main__":
    main()
