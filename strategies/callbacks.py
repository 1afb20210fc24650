"""What happens after each round of a run: held-out accuracy, tables, what is asked for, and a checkpoint.

A callback is `(Round) -> None`, told once the tables are written and before the checkpoint: a run that was
killed goes on behind its last checkpoint, and tells of the rounds since then again. Those named in the
setting `run.callbacks` are found in the entry-point group `cdc_flower.callbacks`: a function
`(config) -> callback` (`trackers` has those that are here).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid

from cdc_flower import checkpoint, plugins
from cdc_flower.checkpoint import Part, Saved
from cdc_flower.config import Config
from cdc_flower.data.world import World
from cdc_flower.fleet.cost.charges import CloudCharges
from cdc_flower.fleet.engines import adapter_files
from cdc_flower.fleet.time.timed_grid import TimedGrid
from cdc_flower.models import adapters
from cdc_flower.results import CLOUD_FLOPS
from cdc_flower.run_folder import RunFolder
from cdc_flower.wire import keys
from strategies import personal
from strategies.accuracy import Measured, items, measure
from strategies.fleet import Fleet
from strategies.method import Method, Setup
from strategies.resumed import Earlier
from strategies.retrieved import Finder, finder


@dataclass(frozen=True)
class Round:
    """A round that has ended, round 0 before the first.

    Attributes:
        number: from 0.
        measured: domain -> held-out accuracy 0..1; None in a round without an evaluation.
        prequential: domain -> (correct, answered) on the stream in this round.
        metrics: of method and clock.
        folder: of the run.
    """

    number: int
    measured: Mapping[str, float] | None
    prequential: Mapping[str, tuple[float, int]]
    metrics: Mapping[str, float]
    folder: RunFolder


Callback = Callable[[Round], None]


def chosen(config: Config) -> list[Callback]:
    """The callbacks of the setting `run.callbacks`.

    Raises:
        ConfigError: one that is not registered, or cannot be used.
    """
    found = []
    for name in filter(None, (n.strip() for n in config.run.callbacks.split(","))):
        found.append(plugins.load(plugins.CALLBACKS, name)(config))
    return found


@dataclass
class After:
    """Flower's `evaluate_fn` of a run: `finished` is called before round 1 (as round 0) and after each.

    Attributes:
        parts: who has a part in a checkpoint; {} = no checkpoints.
        identity: of the run, for its checkpoints.
        cloud: counts what the cloud computes; None = nothing.
        saved_states: the devices', in the last checkpoint.
        arrays: after the last round.
    """

    setup: Setup
    method: Method
    grid: Grid
    folder: RunFolder
    parts: dict[str, Saved]
    identity: Part
    callbacks: list[Callback]
    progress: Callable[[str, int, int], None] | None = None
    cloud: CloudCharges | None = None
    saved_states: Part = field(default_factory=dict)
    arrays: ArrayRecord | None = None
    _measured: tuple[bytes, Measured] | None = None
    _samples: int = 0

    def resumed(self, found: Earlier, arrays: ArrayRecord) -> None:
        """Go on where an earlier run stopped; the tables on disk become those of then."""
        self.arrays, self.saved_states = arrays, found.parts["devices"]
        self._taken(self._write_devices())
        self._say("rounds", found.round)

    def finished(self, round: int, arrays: ArrayRecord) -> MetricRecord:
        """Evaluate, write the tables, tell whoever else wants to know, and save."""
        run, fleet = self.setup.config.run, self.method.fleet
        found = None
        if round in (0, run.rounds) or round % run.eval_every == 0:
            self._say("evaluation", round)
            with self.folder.stage("evaluation"):
                found = self._measured_now()
        self.folder.stage_seconds.update(fleet.seconds)
        clock = self.grid if isinstance(self.grid, TimedGrid) else None
        if clock is not None:
            self.folder.stage_seconds["clock"] = clock.host_seconds
        taken = self._taken(self._write_devices())
        heard = fleet.prequential.get(round, {})
        metrics = {**self.method.metrics, **(clock.last if clock is not None else {})}
        metrics |= fleet.door.metrics if fleet.door is not None else {}
        if round and self.cloud is not None:
            metrics[CLOUD_FLOPS] = self.cloud.flops(self.method.cloud_work(taken))
        measured = None
        if found is not None:
            measured, metrics = found.accuracy, {**metrics, **found.beside}
            self.folder.items(self._world.test["drift_domain"].tolist(), found.worth)
            if self.own:
                whose = self.setup.config.data.partition_by
                table = personal.table(self._world, self.own, found.worth, round, whose)
                self.folder.measured("personal", table)
            self._retrieve(round)
        self.folder.round(round, measured, heard, metrics, items(self._world))
        self.arrays = arrays
        for callback in self.callbacks:  # first: a kill before the checkpoint repeats a round, and loses none
            callback(Round(round, measured, heard, metrics, self.folder))
        self._checkpoint(round, arrays)
        self._say("rounds", round)
        return MetricRecord(dict(measured or {}))

    def end(self, status: str) -> None:
        """Bring the folder up to date for the last time."""
        self._write_devices(account_digest(self.method.fleet, self.grid))
        last = None if self.arrays is None else self.arrays[keys.PAYLOAD].numpy().tobytes()
        self.folder.finish(status, None if last is None else hashlib.sha256(last).hexdigest())

    def _write_devices(self, digest: str | None = None) -> pd.DataFrame:
        """Write the ledger so far, and return it."""
        ledger = account(self.method.fleet, self.grid)
        self.folder.devices(ledger, digest)
        return ledger

    def _checkpoint(self, round: int, arrays: ArrayRecord) -> None:
        run = self.setup.config.run
        every = run.checkpoint_every if self.parts else 0
        if every and (round == run.rounds or round % every == 0):
            with self.folder.stage("checkpoint"):
                self._save(round, arrays)
        elif self.parts and not every:
            self._sweep(self.parts["devices"].state())

    def _save(self, round: int, arrays: ArrayRecord) -> None:
        parts: dict[str, Part] = {name: part.state() for name, part in self.parts.items()}
        parts["arrays"] = {name: array.numpy() for name, array in arrays.items()}
        parts["folder"], parts["run"] = self.folder.state(), self.identity
        last = round == self.setup.config.run.rounds  # kept for whoever asks for more rounds
        checkpoint.save(self.folder.checkpoints, round, parts, keep=1 if last else 2)
        self._sweep(parts["devices"], {} if last else self.saved_states)
        self.saved_states = parts["devices"]

    def _sweep(self, *states: Part) -> None:
        """Let go of the adapters that neither a device nor a checkpoint that is kept names."""
        named = (bytes(state) for part in states for state in part.values())  # type: ignore[arg-type]
        adapter_files.sweep(self.folder.path / adapter_files.FOLDER, named)

    @cached_property
    def own(self) -> Mapping[int, np.ndarray]:
        """Device -> its own test items, positions in the world's; {} = they are everybody's."""
        world = self.setup.world
        every = {d: world.own(d) for d in self.setup.shown} if world.owners is not None else {}
        return {device: items for device, items in every.items() if len(items)}

    @cached_property
    def _world(self) -> World:
        """With the items that are measured."""
        world = self.setup.world
        return personal.of_devices(world, self.own) if self.own else world

    @cached_property
    def _devices(self) -> list[int]:
        """Whose adapters are measured."""
        return list(self.own) or (self.setup.shown if self.method.traits.personal else [0])

    @cached_property
    def _finder(self) -> Finder | None:
        setup = self.setup
        whose = setup.config.data.partition_by
        return finder(self.method.model, setup.shared, setup.world, self._devices, whose)

    def _retrieve(self, round: int) -> None:
        """Measure retrieval before the first round and after the last, where there is any."""
        if self._finder is not None and round in (0, self.setup.config.run.rounds):
            with self.folder.stage("evaluation"):
                flats = {device: self.method.adapter_of(device) for device in self._devices}
                self.folder.measured("retrieval", self._finder.rows(round, flats))

    def _measured_now(self) -> Measured:
        """What the held-out answers are worth: of the one adapter, the mean over up to `devices.SHOWN`
        devices' own, or of each device to its own items.
        """
        playing = self.method
        flats = [playing.adapter_of(device) for device in self._devices]
        named = [hashlib.sha256(flat.tobytes()).digest() for flat in flats]
        key, found = b"".join(named), dict[bytes, Measured]()
        if self._measured is not None and self._measured[0] == key:
            return self._measured[1]
        rest = playing.model, self.setup.shared, self._world
        if self.own:
            measured = personal.measure_own(*rest, self.own, flats)
        else:
            for name, flat in dict(zip(named, flats, strict=True)).items():
                with adapters.wearing(playing.model, flat):
                    found[name] = measure(*rest)
            measured = Measured.mean([found[name] for name in named])
        self._measured = key, measured
        return measured

    def _taken(self, ledger: pd.DataFrame) -> int:
        """Samples that came in since the ledger that this was given before, or since the run was resumed."""
        before, self._samples = self._samples, int(ledger["uploaded_samples"].sum())
        return self._samples - before

    def _say(self, stage: str, round: int) -> None:
        if self.progress is not None:
            self.progress(stage, round, self.setup.config.run.rounds)


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
