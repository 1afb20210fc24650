"""What a device-task costs beside the work itself, and how near the fleet is to the model's own speed:
`make bench-fleet`, or `python -m experiments.bench.fleet --out FOLDER`.

Engines stand side by side in one run, each asked for the same rounds: FleetGrid, LocalGrid, and Flower's own
simulation under `flwr run` (with the same niceness of its workers). Rounds are timed inside the server, after
a first one that is not counted, so neither starting processes nor loading models is in a figure. As in
`experiments.bench.wire` a missed target is printed as missed. On a busy machine read the ratios, not the
seconds."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from cdc_flower.config import flat, parse
from experiments.bench.figures import Figure, figure, host, seconds, table, write
from experiments.bench.many import TASKS, device_tasks, long, personal, traced
from experiments.run import simulate

APPS = "experiments.bench.apps"
IDLE, CLIENT = f"{APPS}:idle", "clients.client_app:app"
IDLE_DEVICES = 100_000
"""So many that what else the process allocates meanwhile (tens of kB) is less than a byte of each."""
PYPROJECT = """[project]
name = "bench"
version = "1.0.0"
description = ""
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
[tool.flwr.app.config]
"""


def stock(folder: Path, server: str, client: str, nodes: int, settings: dict[str, Any]) -> None:
    """`flwr run` of two named apps."""
    app = folder / "app"
    app.mkdir(parents=True)
    (app / "pyproject.toml").write_text(PYPROJECT + simulate.toml(settings))
    modules = [name.split(":") for name in (server, client)]
    roles = zip(modules, ("server", "client"), strict=True)
    (app / "app.py").write_text("".join(f"import {m}\n{role} = {m}.{a}\n" for (m, a), role in roles))
    paths = os.pathsep.join([str(simulate.APP), os.environ.get("PYTHONPATH", "")])
    simulate.run_app(
        app, folder / "home", nodes, environment={"PYTHONPATH": paths, "RAY_worker_niceness": "0"}
    )


def median(values: Sequence[float]) -> float:
    """The middle one; of two the smaller."""
    return sorted(values)[(len(values) - 1) // 2]


def per_task(grid: Any, devices: int, tries: int) -> float:
    """Seconds of a device-task of the idle client: of the middle round of `tries`, after one not counted."""
    from cdc_flower.fleet.engines.local_grid import node_id
    from experiments.bench.apps import ask

    nodes, found = [node_id(i) for i in range(devices)], []
    for _ in range(tries + 1):
        began = time.perf_counter()
        ask(grid, nodes)
        found.append(time.perf_counter() - began)
    return median(found[1:]) / devices


@contextmanager
def fleet(devices: int, workers: int, client: str = IDLE, **more: Any) -> Iterator[Any]:
    """A FleetGrid for the idle client, or another; all its workers have started."""
    import ray

    from cdc_flower.fleet.engines.fleet_grid import FleetGrid

    settings = more.pop("settings", {})
    with FleetGrid(client, devices, settings, workers=workers, **more) as grid:
        ray.wait(grid.workers.starting, num_returns=workers)
        yield grid


def overhead(folder: Path, workers: int, quick: bool) -> Iterator[Figure]:
    """(a): ms of a device-task whose client does nothing."""
    from cdc_flower.fleet.engines.local_grid import LocalGrid
    from experiments.bench.apps import idle

    devices, tries = (100, 2) if quick else (1000, 5)
    flower = 0.0
    if not quick:
        written = folder / "tiny.json"
        settings = {"nodes": devices, "tries": 4, "seconds": str(written)}
        stock(folder / "tiny", f"{APPS}:one_by_one", IDLE, devices, settings)
        flower = median(json.loads(written.read_text())[1:]) / devices * 1e3
        yield figure(f"stock simulation, {devices:,} devices, ms a device-task", flower, 0.5)
    here = per_task(LocalGrid(idle, devices, {}), devices, tries) * 1e3
    yield figure(f"LocalGrid, {devices:,} devices, ms a device-task", here, 0.5)
    for count in sorted({1, workers}):
        with fleet(devices, count) as grid:
            ours = per_task(grid, devices, tries) * 1e3
        what = f"FleetGrid, {count} worker{'s' * (count > 1)}"
        yield figure(f"{what}, {devices:,} devices, ms a device-task", ours, 0.5, "<= 1")
        if flower:
            yield figure(f"stock / {what}", flower, ours, ">= 10")


def scale(workers: int, quick: bool) -> Iterator[Figure]:
    """(c), (d): many devices at once, and memory."""
    from cdc_flower.fleet.engines.local_grid import node_id
    from experiments.bench.apps import ask

    most = 500 if quick else 10_000
    rates = {}
    for devices in (n for n in (100, 1000, 10_000) if n <= most):
        with fleet(devices, workers) as grid:
            rates[devices] = 1 / per_task(grid, devices, max(3, 2 * most // devices)) / workers
            took, memory = devices / rates[devices] / workers, _memory()
    for devices, rate in rates.items():
        yield figure(f"device-tasks/s per core, {devices:,} devices (limit: 100 devices)", rate, rates[100])
    yield figure(f"a round of {devices:,} devices, s", took, devices * 0.5e-3, "<= 1")
    for name, value in memory.items():
        yield Figure(f"{name} after it, MB", value, value, 1.0, "", True)
    tracemalloc.start()
    with fleet(1, workers):
        pass  # what is loaded when the first one ends is no device's
    with fleet(1, workers):
        few = traced()
    with fleet(IDLE_DEVICES, workers) as grid:
        idle = traced()
        ask(grid, [node_id(i) for i in range(most)])
        asked = traced()
    tracemalloc.stop()
    yield figure(f"bytes of an idle device, of {IDLE_DEVICES:,}", (idle - few) / IDLE_DEVICES, 16, "<= 1")
    yield figure(f"bytes more of a device asked once, of {most:,}", (asked - idle) / most, 400, "<= 1")


def _workers() -> list[psutil.Process]:
    """Processes of the workers of a FleetGrid of this process: Ray names one after its class, most often."""
    named = [(p, " ".join(p.cmdline())) for p in psutil.Process().children(recursive=True)]
    return [p for p, line in named if "FleetWorker" in line or "default_worker.py" in line]


def _memory() -> dict[str, float]:
    """MB resident: of this process, and of the mean worker of a FleetGrid where its processes are seen."""
    workers = [p.memory_info().rss / 1e6 for p in _workers()]
    mean = {"RSS of a worker": sum(workers) / len(workers)} if workers else {}
    return {"RSS of the driver": psutil.Process().memory_info().rss / 1e6, **mean}


def _peak() -> float:
    """MB: the largest that a worker of a FleetGrid has been; 0 where none is seen."""
    lines = [line for p in _workers() for line in Path(f"/proc/{p.pid}/status").read_text().splitlines()]
    return max((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), default=0) / 1e3


def rounds(folder: Path, workers: int, quick: bool) -> Iterator[Figure]:
    """(b), (e): the train phase of CDC, inference included, and what the model alone would take."""
    for samples, devices in ((2, 4),) if quick else ((2, 256), (32, 64)):
        small = {"run.rounds": 2, "run.eval-every": 2} if quick else {}
        settings = {**TASKS, **small, "run.samples-per-round": samples, "run.devices": devices}
        what = f"CDC, {devices} devices of {samples} samples: device-tasks/s"
        own = {**settings, "run.out-dir": str(folder / f"fleet-{samples}")}
        phases, peak = _fleet_phases(own, workers)
        if samples == 2 and peak:
            yield Figure("peak RSS of a worker of CDC, which holds no teacher, MB", peak, peak, 1.0, "", True)
        rate = devices / median(phases[1:])
        if not quick:
            out = folder / f"flower-{samples}"
            run_config = flat(parse({**settings, "run.out-dir": str(out)}))
            stock(folder / f"cdc-{samples}", f"{APPS}:real", CLIENT, devices, run_config)
            theirs = json.loads(out.with_suffix(".seconds").read_text())
            yield figure(
                f"{what}, FleetGrid / stock",
                rate,
                devices / median(theirs[1:]),
                ">= 5" if samples == 2 else "",
            )
        alone = {rows: model_alone(rows) for rows in ((1, 128) if quick else (1, 32, 64, 128, 256))}
        best = min(alone, key=lambda rows: alone[rows])
        bound = workers / (samples * alone[best])
        yield figure(f"{what} / the model's alone, {workers} cores, batches of {best}", rate, bound)
    for rows, took in alone.items():
        name = f"the model alone, batches of {rows}: ms a sample (limit: of {best})"
        yield figure(name, took * 1e3, alone[best] * 1e3)


def _fleet_phases(settings: dict[str, Any], workers: int) -> tuple[list[float], float]:
    """Seconds of the train phases of a run on a FleetGrid, and the peak memory of its workers in MB."""
    from flwr.app import Context, RecordDict

    from experiments.bench.apps import timed
    from strategies.run import BUNDLE, run

    run_config = flat(parse(settings))
    devices = settings["run.devices"]
    with fleet(devices, workers, CLIENT, settings=run_config, bundle=BUNDLE) as grid:
        seconds = timed(grid)
        run(grid, Context(1, 1, {}, RecordDict(), run_config))
        peak = _peak()
    return seconds, peak


def model_alone(rows: int) -> float:
    """CPU seconds of a sample answered and scored by the packaged student, in batches of `rows`: questions
    and pictures of a stream, padded as in every run.
    """
    from cdc_flower.models.student import device_model
    from clients import inference

    (task,) = device_tasks(1, rows)
    model, config = device_model(task.shared, task.config.pair), task.config
    inputs = inference.batch(
        task.shared, task.source.longest, task.tokens(task.items), task.questions(task.items)
    )
    score = config.uplink.token_score
    return seconds(lambda: inference.answer_batch(model, task.shared, inputs, score)) / rows


def measure(workers: int, quick: bool, many_rounds: bool = False) -> Iterator[Figure]:
    """All figures, as they are measured; or those of many rounds."""
    if many_rounds:
        with _quiet():
            yield from long(workers, quick)
        return
    with tempfile.TemporaryDirectory() as name, _quiet():
        folder = Path(name)
        yield from overhead(folder, workers, quick)
        yield from scale(workers, quick)
        yield from rounds(folder, workers, quick)
        yield from personal(quick)


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower prints a page a run."""
    import flwr.app  # noqa: F401  sets the level

    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write `bench-fleet.json` where `--out` is given."""
    summary = "What a device-task costs beside the work itself."
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.fleet", description=summary)
    parser.add_argument("--out", type=Path, help="folder for bench-fleet.json")
    parser.add_argument("--quick", action="store_true", help="few devices, and no stock simulation")
    parser.add_argument("--long", action="store_true", help="memory over ten rounds instead")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: one per core")
    asked = parser.parse_args(argv)
    console = Console(file=sys.stdout, width=150, highlight=False)
    console.print(f"host: {host()}", markup=False)
    figures = list[Figure]()
    for found in measure(asked.workers, asked.quick, asked.long):
        figures.append(found)
        print(f"{found.name}: {found.value:,.4g}", file=sys.stderr, flush=True)  # noqa: T201
    console.print(table(figures))
    write(figures, asked.out, "bench-fleet.json")


if __name__ == "__main__":
    main()
