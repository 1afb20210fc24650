"""Many devices with adapters of their own, and many rounds: parts of `experiments.bench.fleet`."""

from __future__ import annotations

import gc
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from cdc_flower.config import parse
from experiments.bench.figures import Figure, figure

TASKS = {
    "run.rounds": 3,
    "data.partition": "shared",
    "run.eval-every": 3,
    "cloud.steps": 1,
    "cloud.source-replay": 50,
    "data.items-per-domain": 10,
    "data.scenes-train": 400,
    "data.scenes-test": 100,
}
"""A run whose cloud does next to nothing."""


def device_tasks(devices: int, samples: int) -> list[Any]:
    """The tasks of a first round, without a server, and what they read."""
    import torch

    from cdc_flower.data.source import publish, source
    from cdc_flower.data.world import load_world
    from cdc_flower.models.shared import load_shared
    from cdc_flower.wire import keys
    from clients.store import Store
    from clients.task import Task

    torch.set_num_threads(1)
    config = parse({**TASKS, "run.devices": devices, "run.samples-per-round": samples})
    shared = load_shared(config.pair, "scenes")
    publish(config, shared, load_world(config, shared))
    sent = RecordDict({keys.CONFIG: ConfigRecord({keys.VERSION: 0})})
    return [
        Task(config, shared, source(config, shared, d), d, 1, sent, Store(RecordDict()))
        for d in range(devices)
    ]


def personal(quick: bool) -> Iterator[Figure]:
    """Devices that wear an adapter each: answered together, and one at a time; CPU seconds of one process."""
    from clients import inference
    from clients.store import Adapter
    from clients.task import resident

    devices, samples = (8 if quick else 256), 2
    tasks = device_tasks(devices, samples)
    student = resident(tasks[0].shared, tasks[0].models)
    rng, start = np.random.default_rng(0), student.initial.flat
    own = [Adapter.of(start + rng.normal(0, 0.05, len(start)).astype(np.float32), 1) for _ in tasks]

    def work(task: Any, adapter: Adapter) -> inference.Work:
        tokens, asked = task.tokens(task.items), task.questions(task.items)
        yield inference.Ask(task, student.model, adapter, tokens, asked, "attention")
        return RecordDict()

    works = list(zip(tasks, own, strict=True))
    together, apart = side_by_side(
        lambda: inference.drive(work(*one) for one in works),
        lambda: [inference.alone(work(*one)) for one in works],
        1 if quick else 3,
    )
    what = f"{devices} devices of {samples} samples with {devices} adapters"
    yield figure(f"{what}: device-tasks/s, / one at a time", devices / together, devices / apart, ">= 3")


def long(workers: int, quick: bool) -> Iterator[Figure]:
    """Ten rounds of a large fleet, each of other devices: what this process holds after each of them."""
    from cdc_flower.fleet.engines.fleet_grid import FleetGrid
    from cdc_flower.fleet.engines.local_grid import node_id
    from experiments.bench.apps import ask

    devices, asked, rounds = (500, 50, 4) if quick else (100_000, 10_000, 10)
    rng, held = np.random.default_rng(0), list[int]()
    with FleetGrid("experiments.bench.apps:idle", devices, {}, workers=workers) as grid:
        ask(grid, [node_id(0)])
        (state,) = grid.states().values()
        tracemalloc.start()
        grid.restore({d: bytes(bytearray(state)) for d in range(devices)})  # all have been asked before
        for _ in range(rounds):
            ask(grid, [node_id(d) for d in rng.choice(devices, asked, replace=False).tolist()])
            held.append(traced())
        tracemalloc.stop()
    yield flat(f"{devices:,} idle devices, {asked:,} asked a round", held, "<= 1.05")
    yield flat(*_rounds_of_cdc(workers, *((40, 8, 4) if quick else (10_000, 1_000, 10))))


def _rounds_of_cdc(workers: int, devices: int, cohort: int, rounds: int) -> tuple[str, list[int]]:
    """The same of a whole run of CDC, server included; models are not traced."""
    from strategies.run import run_fleet

    held = list[int]()

    def after(stage: str, done: int, total: int) -> None:
        if stage == "rounds" and done:
            held.append(traced())

    sizes = {
        "run.devices": devices,
        "run.cohort": cohort / devices,
        "run.rounds": rounds,
        "run.eval-every": rounds,
    }
    with tempfile.TemporaryDirectory() as folder:
        small = {"run.samples-per-round": 1, "cloud.replay-bytes": 2**20}  # full at once: it has a limit
        own = {**TASKS, **sizes, **small, "run.out-dir": folder, "run.checkpoint-every": 0}
        config = parse(own)
        tracemalloc.start()
        run_fleet(config, after, workers=workers)
        tracemalloc.stop()
    return f"CDC, {devices:,} devices of 1 sample, {cohort:,} asked a round", held


def flat(what: str, held: Sequence[int], target: str = "") -> Figure:
    """What is traced after the last round beside the second; MB. A run of CDC keeps rows for its ledger and
    states of devices that it asks for the first time.
    """
    name = f"{what}: MB traced in the driver after round {len(held)} (limit: round 2)"
    return figure(name, held[-1] / 1e6, held[1] / 1e6, target)


def traced() -> int:
    """Bytes that Python objects and numpy arrays of this process take."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def side_by_side(one: Callable[[], Any], other: Callable[[], Any], turns: int) -> tuple[float, float]:
    """CPU seconds of two calls in turn: of each the fastest."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for call, took in zip((one, other), found, strict=True):
            began = time.process_time()
            call()
            took.append(time.process_time() - began)
    return min(found[0]), min(found[1])
