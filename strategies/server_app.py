"""The ServerApp: one run from a flat run config to a run folder, the same on every engine.

`flwr run .` calls `main`; `run_local` does the same over a `LocalGrid` in this process. Everything that can
be wrong with the settings is refused before the first round. Held-out accuracy is taken at round 0, every
`eval_every` rounds and after the last; prequential accuracy comes from the devices' evaluate replies in every
round."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from flwr.app import Array, ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log

from cdc_flower import checkpoint
from cdc_flower.checkpoint import Part, Saved
from cdc_flower.config import Config, ConfigError, flat, parse
from cdc_flower.data.world import World, load_world
from cdc_flower.fleet.cost.charges import cloud_charges
from cdc_flower.fleet.engines import adapter_files
from cdc_flower.fleet.engines.local_grid import DeviceStates, HasStates, LocalGrid
from cdc_flower.fleet.time.timed_grid import TimedGrid
from cdc_flower.models.shared import Shared, load_shared
from cdc_flower.models.teacher import load_teacher, pair_digest
from cdc_flower.results import RunFolder, package_versions
from cdc_flower.wire import keys
from strategies import STRATEGIES
from strategies.accuracy import accuracy, items, wearing
from strategies.base import Fleet, discover, wanted
from strategies.checks import check, fleet
from strategies.pictures import pictures
from strategies.resumed import Resumed, earlier, put_back

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`; in a run `done` and `total` are rounds."""
CLIENT_APP = "clients.client_app:app"  # found by name, as Flower does it: strategies do not import clients
BUNDLE = "clients.bundle:run"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """What `flwr run .` runs."""
    try:
        if not Path(str(context.run_config.get("run.out-dir", ""))).is_absolute():
            raise ConfigError(
                f"setting 'run.out-dir' = {context.run_config.get('run.out-dir', '')!r}; allowed under "
                "`flwr run`: an absolute path, because the app runs elsewhere"
            )
        run(grid, context)
    except ConfigError as err:
        log(ERROR, "%s", err)
        raise


def run(grid: Grid, context: Context, progress: Progress | None = None, *, resume: bool = False) -> Path:
    """One run over any grid.

    Args:
        grid: where the devices are.
        context: its `run_config` is the flat run config.
        progress: see `Progress`.
        resume: go on after the newest checkpoint in the run folder, from the beginning where there is none.

    Returns:
        the run folder.

    Raises:
        ConfigError: a setting, the data or the pair cannot be used; nothing was started.
        FleetError: too few devices.
    """
    config = parse(context.run_config)
    torch.set_num_threads(1)  # the order of sums, and with it the ledger, is then the same on every engine
    folder = RunFolder(out_dir(config))
    with folder.stage("load"):
        shared, world = prepare(config, progress)
        strategy = STRATEGIES[config.run.method](config, shared, world)
        if config.fleet.mode != "off":
            strategy.fleet.nodes = discover(grid, config.run.devices, config.run.round_timeout)
            grid = timed(grid, config, shared, world, strategy.fleet.nodes)
    engine = grid.inner if isinstance(grid, TimedGrid) else grid
    facts: dict[str, Any] = {
        **digests(config, shared, world),
        "pair": shared.name,
        "engine": type(engine).__name__,
    }
    parts = _parts(grid, strategy)
    found = earlier(folder, config, facts, bool(parts)) if resume else None
    if found is not None:
        put_back(parts, found, folder.path)
        facts["resumed_after"] = found.round
    folder.begin(config, package_versions(), facts, found and (found.round, found.parts["folder"]))
    rounds = _Rounds(config, shared, world, strategy, grid, folder, parts, progress)
    status = "failed"
    try:
        if found is None:
            rounds.play(grid, strategy.initial_arrays())
        else:
            arrays = ArrayRecord({k: Array(v) for k, v in found.parts["arrays"].items()})
            rounds.saved_states = found.parts["devices"]
            rounds.play(grid, arrays, found.round)
        strategy.fleet.close()
        status = "completed"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        folder.pictures(pictures(getattr(strategy, "examples", ()), shared, world))
        rounds.finish(status)
    return folder.path


def timed(grid: Grid, config: Config, shared: Shared, world: World, nodes: Mapping[int, int]) -> TimedGrid:
    """The grid in virtual time.

    Raises:
        ConfigError: a mix, cost model or trace that cannot be used, or a fleet in which no device can ever be
            asked.
    """
    charged, trace = fleet(config, shared, world)
    cloud = cloud_charges(config, shared, charged)
    enough = wanted(config.run.devices, config.run.cohort)
    return TimedGrid(grid, nodes, config.fleet, charged, trace, enough, *([cloud.seconds] if cloud else []))


def account(fleet: Fleet, grid: Grid) -> pd.DataFrame:
    """The ledger as a table, with virtual time where there is one."""
    ledger, times = fleet.ledger.frame(), grid.table() if isinstance(grid, TimedGrid) else pd.DataFrame()
    if not len(times):
        return ledger
    return ledger.merge(times, on=["round", "device"], how="left", validate="one_to_one")


def account_digest(fleet: Fleet, grid: Grid) -> str:
    """Of all in `account` but the host's seconds."""
    digest = fleet.ledger.digest()
    if not isinstance(grid, TimedGrid):
        return digest
    return hashlib.sha256(f"{digest}{grid.digest()}".encode()).hexdigest()


def _parts(grid: Grid, strategy: Any) -> dict[str, Saved]:
    """Who has a part in a checkpoint, beside the arrays and the run folder: everything that lives from round
    to round. {} on a grid that keeps its devices' states to itself: no checkpoints there.
    """
    engine, clock = (grid.inner, {"clock": grid}) if isinstance(grid, TimedGrid) else (grid, {})
    if not isinstance(engine, HasStates):
        return {}
    return {**strategy.parts(), **clock, "devices": DeviceStates(engine)}


class _Rounds:
    """The rounds, and what happens after each: accuracy, the run folder brought up to date, a checkpoint."""

    def __init__(
        self,
        config: Config,
        shared: Shared,
        world: World,
        strategy: Any,
        grid: Grid,
        folder: RunFolder,
        parts: dict[str, Saved],
        progress: Progress | None,
    ) -> None:
        self.config, self.shared, self.world = config, shared, world
        self.strategy, self.grid, self.folder, self.parts = strategy, grid, folder, parts
        self.progress = progress
        self.saved_states: Part = {}  # the devices', in the last checkpoint
        self._arrays: ArrayRecord | None = None  # after the last round
        self._last: tuple[bytes, dict[str, float]] | None = None

    def play(self, grid: Grid, arrays: ArrayRecord, done: int | None = None) -> None:
        """All rounds from `arrays` on, or those after the first `done`."""
        run, strategy, evaluate = self.config.run, self.strategy, self.finished
        if done is not None:
            self._arrays, strategy = arrays, Resumed(strategy, done)
            evaluate = strategy.evaluation(self.finished)
            self._write_devices()  # as the other tables: those of then
            self._say("rounds", done)
        strategy.start(
            grid, arrays, num_rounds=run.rounds - (done or 0), timeout=run.round_timeout, evaluate_fn=evaluate
        )

    def finish(self, status: str) -> None:
        """Bring the folder up to date for the last time."""
        self._write_devices(account_digest(self.strategy.fleet, self.grid))
        last = None if self._arrays is None else self._arrays[keys.PAYLOAD].numpy().tobytes()
        self.folder.finish(status, None if last is None else hashlib.sha256(last).hexdigest())

    def _write_devices(self, digest: str | None = None) -> None:
        self.folder.devices(account(self.strategy.fleet, self.grid), digest)

    def finished(self, round: int, arrays: ArrayRecord) -> MetricRecord:
        """Flower's `evaluate_fn`: called before round 1 (as round 0) and after each round."""
        run, fleet = self.config.run, self.strategy.fleet
        measured = None
        if round in (0, run.rounds) or round % run.eval_every == 0:
            self._say("evaluation", round)
            with self.folder.stage("evaluation"):
                measured = self._accuracy(arrays)
        self.folder.stage_seconds.update(fleet.seconds)
        if isinstance(self.grid, TimedGrid):
            self.folder.stage_seconds["clock"] = self.grid.host_seconds
        self._write_devices()
        metrics = {**self.strategy.metrics, **(self.grid.last if isinstance(self.grid, TimedGrid) else {})}
        self.folder.round(round, measured, fleet.prequential.get(round, {}), metrics, items(self.world))
        self._arrays = arrays
        every = run.checkpoint_every if self.parts else 0
        if every and (round == run.rounds or round % every == 0):
            with self.folder.stage("checkpoint"):
                self._save(round, arrays)
        elif self.parts and not every:
            self._sweep(self.parts["devices"].state())
        self._say("rounds", round)
        return MetricRecord(dict(measured or {}))

    def _save(self, round: int, arrays: ArrayRecord) -> None:
        parts: dict[str, Part] = {name: part.state() for name, part in self.parts.items()}
        parts["arrays"] = {name: array.numpy() for name, array in arrays.items()}
        parts["folder"] = self.folder.state()
        last = round == self.config.run.rounds  # kept for whoever asks for more rounds
        checkpoint.save(self.folder.checkpoints, round, parts, keep=1 if last else 2)
        self._sweep(parts["devices"], {} if last else self.saved_states)
        self.saved_states = parts["devices"]

    def _sweep(self, *states: Part) -> None:
        """Let go of the adapters that neither a device nor a checkpoint that is kept names."""
        named = (bytes(state) for part in states for state in part.values())  # type: ignore[arg-type]
        adapter_files.sweep(self.folder.path / adapter_files.FOLDER, named)

    def _accuracy(self, arrays: ArrayRecord) -> dict[str, float]:
        data = arrays[keys.PAYLOAD].data
        if self._last is None or self._last[0] != data:
            with wearing(self.strategy.model, arrays[keys.PAYLOAD].numpy()) as model:
                self._last = data, accuracy(model, self.shared, self.world)
        return self._last[1]

    def _say(self, stage: str, round: int) -> None:
        if self.progress is not None:
            self.progress(stage, round, self.config.run.rounds)


def out_dir(config: Config) -> Path:
    """The run folder: the setting, else results/<method>-<seed>."""
    return (
        Path(config.run.out_dir or f"results/{config.run.method}-{config.run.seed}").expanduser().absolute()
    )


def prepare(config: Config, progress: Progress | None = None) -> tuple[Shared, World]:
    """Load the shared models and the world, with vision tokens computed where they are not cached, and check
    what only these can tell.

    Raises:
        ConfigError: see `check`, `load_shared`, `load_world`.
    """
    shared = load_shared(config.pair, config.data.name)
    world = load_world(config, shared, progress)
    check(config, shared, world)
    return shared, world


def digests(config: Config, shared: Shared, world: World) -> dict[str, str]:
    """What models and data of a run are known by."""
    return {
        "pair_digest": pair_digest(config.pair, shared, config.data.name),
        "data_digest": world.pack.digest,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower's logger prints a page a run; over a LocalGrid the progress callback says what is happening."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def run_local(
    config: Config, progress: Progress | None = None, *, roundtrip: bool = False, resume: bool = False
) -> Path:
    """One run in this process, devices one after another; `roundtrip` as in `LocalGrid`, `resume` as in
    `run`. Returns the run folder.
    """
    module, name = CLIENT_APP.split(":")
    client_app = getattr(importlib.import_module(module), name)
    settings = {
        **flat(config),
        "run.out-dir": str(out_dir(config)),
    }  # devices' adapters stay there for a resume
    with _quiet():
        grid = LocalGrid(client_app, config.run.devices, settings, roundtrip=roundtrip)
        return run(grid, Context(1, 1, {}, RecordDict(), settings), progress, resume=resume)


def run_fleet(
    config: Config,
    progress: Progress | None = None,
    *,
    resume: bool = False,
    workers: int = 0,
    ray_address: str = "",
    gpu_fraction: float = 0.0,
) -> Path:
    """One run on Ray workers: arguments as in `FleetGrid`, results as in `run_local`. Returns the run
    folder.
    """
    from cdc_flower.fleet.engines.fleet_grid import FleetGrid

    settings = {**flat(config), "run.out-dir": str(out_dir(config))}  # workers have folders of their own
    with (
        _quiet(),
        FleetGrid(
            CLIENT_APP,
            config.run.devices,
            settings,
            bundle=BUNDLE,
            workers=workers,
            ray_address=ray_address,
            gpu_fraction=gpu_fraction,
        ) as grid,
    ):
        return run(grid, Context(1, 1, {}, RecordDict(), settings), progress, resume=resume)


def teacher_accuracy(config: Config, progress: Progress | None = None) -> dict[str, float]:
    """Held-out accuracy of the teacher by domain: the ceiling."""
    shared, world = prepare(config, progress)
    teacher = load_teacher(config.pair, shared, config.data.name)
    return accuracy(teacher.model, shared, world, progress)
