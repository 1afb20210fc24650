"""Rounds without end: what the ServerApp of a deployment does.

Before a round it is looked who is connected; a round in which nobody is costs nothing and is not counted.
After each one a checkpoint holds the method, the adapter, the tables and the counts, but no state of a
device: devices keep theirs, and say in every reply which adapter they have. A cloud that was killed goes on
after the newest checkpoint and asks the round again that it was in. Nothing is asked but TRAIN: what devices
answered is theirs, and no stream is published for them.

Tables and ledger of the rounds so far are in memory and in each checkpoint; every `ROUNDS` rounds, or `ROWS`
rows of the ledger, they are written to `parts/<last round>` of the run folder and begin anew, so that neither
grows without end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from logging import ERROR, INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.supercore import log

from cdc_flower import checkpoint
from cdc_flower.checkpoint import Part, Saved
from cdc_flower.config import Config, ConfigError, flat
from cdc_flower.disk import DiskError
from cdc_flower.ledger import Ledger
from cdc_flower.models import adapters
from cdc_flower.results import provenance
from cdc_flower.run_folder import RunFolder
from strategies.accuracy import items, measure
from strategies.lineage import Lineage
from strategies.method import Method, Setup
from strategies.resumed import Earlier, put_back
from strategies.served import versions
from strategies.served.gathering import Gathering
from strategies.served.nodes import Nodes
from strategies.served.settings import ServedConfig
from strategies.served.status import FILE, Status
from strategies.served.versions import RollbackError

ROUNDS, ROWS = 1_000, 50_000
IDLE = 5.0  # s, at most, until it is looked again whether somebody has come
STEP = 1.0  # s, at most, that a wait lasts at a time
ROOM = 5.0  # s, between two tries to write to a disk that did not take it
SAME = ("run.method", "pair.compression", "pair.adapter", "pair.lora-rank")
"""Settings that a cloud cannot change and go on; with them the pair of models."""


@dataclass
class Service:
    """A cloud at work.

    Args:
        config: of the run.
        own: how its rounds are.
        cloud: its folder, with `devices.json`; `status.json` is written there.
        setup: models and data.
        playing: the method, as it was built.
        grid: where the nodes are.
        sleep: of the tests.

    Attributes:
        round: the last that was done.
        arrays: after it.
    """

    config: Config
    own: ServedConfig
    cloud: Path
    setup: Setup
    playing: Method
    grid: Gathering
    sleep: Callable[[float], None] = time.sleep
    round: int = 0
    arrays: ArrayRecord = field(default_factory=ArrayRecord)

    def __post_init__(self) -> None:
        self.folder = RunFolder(self.config.run.out_dir)
        self.nodes = Nodes(self.cloud, not self.own.insecure)
        self.status = Status(self.cloud / FILE)
        self.parts: dict[str, Saved] = {**self.playing.parts(), "folder": self.folder, "status": self.status}
        late = {"mode": "async", "in_flight": 10**7} if self.own.rounds == "buffer" else {"mode": "sync"}
        fleet = self.playing.fleet
        fleet.rules = replace(self.config.fleet, over_selection=1.0, late="drop", **late)
        fleet.min_devices = 0  # nobody being there is no reason to end

    def serve(self) -> None:
        """Rounds, until the last one where there is one."""
        self.begin()
        while not self.own.last_round or self.round < self.own.last_round:
            began = time.monotonic()
            self.back()
            played = self.play()
            pause = self.own.period if played else max(STEP, min(self.own.period, IDLE))
            self._wait(began + pause)
        self._say("ended")
        self.folder.finish("completed")

    def _wait(self, until: float) -> None:
        """Sleep, but not beyond a request."""
        while (left := until - time.monotonic()) > 0 and versions.requested(self.cloud) is None:
            self.sleep(min(left, STEP))

    # --- begin ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Go on after the newest checkpoint, or begin.

        Raises:
            ConfigError: the checkpoint is of another method or pair of models.
        """
        found = checkpoint.load_newest(self.folder.checkpoints)
        facts = {"pair_digest": self.setup.digest, "data_digest": self.setup.world.pack.digest}
        facts |= {"pair": self.setup.shared.name, "engine": "deployment"}
        if found is not None:
            self._take(Earlier(*found))
            self.folder.begin(self.config, provenance(), facts, (found[0], found[1]["folder"]))
            log(INFO, "the cloud goes on after round %s, version %s", self.round, self.version)
            self._until_written(lambda: self._say("waiting"))
            return
        self.round, self.arrays = self._asked_before(), self.playing.initial_arrays()
        self.folder.begin(self.config, provenance(), facts)
        self._made(None)
        self._save()

    def _take(self, found: Earlier) -> None:
        now, before = self._identity(), found.parts.get("run", {})
        if differs := next((key for key, value in now.items() if before.get(key) != value), None):
            raise ConfigError(
                f"{self.folder.path}: the checkpoint of round {found.round} has {differs} = "
                f"{before.get(differs)!r}, now it is {now[differs]!r}; allowed: the same, or another folder"
            )
        put_back({n: p for n, p in self.parts.items() if n != "folder"}, found, self.folder.path)
        self.nodes.load(found.parts.get("nodes", {}))
        saved: Any = found.parts["arrays"]
        self.round, self.arrays = found.round, ArrayRecord({k: Array(v) for k, v in saved.items()})
        self.playing.fleet.close()  # what was open was asked by a process that is gone

    def _asked_before(self) -> int:
        """Where rounds begin to count: behind those of a cloud that lost its checkpoints."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(self.status.path.read_text(encoding="utf-8"))
            before = int(said["round"]) + 1
            log(WARNING, "no checkpoint can be read: the cloud begins anew, with round %s", before + 1)
            return before
        return 0

    def _identity(self) -> Part:
        settings = flat(self.config)
        return {**{key: settings[key] for key in SAME}, "pair_digest": self.setup.digest}

    # --- a round --------------------------------------------------------------------------------------------

    def play(self) -> bool:
        """A round; False where there was nobody to ask."""
        fleet, number = self.playing.fleet, self.round + 1
        fleet.nodes = dict(self.nodes.look(self.grid))
        fleet.devices = max(1, self.nodes.devices)
        messages = []
        if len(fleet.nodes) >= self.own.least:
            messages = list(self.playing.configure_train(number, self.arrays, ConfigRecord(), self.grid))
        if not messages and not self.grid.open:
            self._until_written(lambda: self._say("waiting"))
            return False
        self._until_written(lambda: self._say("asking"))
        before, rows = self.version, len(fleet.ledger)
        replies = self.grid.send_and_receive(messages, timeout=self.own.round_timeout)
        arrays, _ = self.playing.aggregate_train(number, replies)
        self.round, self.arrays = number, self.arrays if arrays is None else arrays
        self.status.count(fleet.ledger.entered(rows), self.nodes.connected)
        metrics = {**self.playing.metrics, **(fleet.door.metrics if fleet.door is not None else {})}
        self.status.now["agreement"] = metrics.get("agreement", self.status.now["agreement"])
        self.status.now["guard"] = metrics.get("guard_share", self.status.now["guard"])
        made = self.version != before
        measured = self._measured() if made else None
        if made:
            self._made(metrics.get("agreement"))
        self.folder.stage_seconds.update(fleet.seconds)
        self._until_written(lambda: self._record(number, measured, metrics))
        self._until_written(lambda: self._save(made))
        self._until_written(lambda: self._say("waiting"))
        return True

    def _record(self, number: int, measured: Any, metrics: Mapping[str, float]) -> None:
        """The tables with a round in them; twice is once."""
        fleet = self.playing.fleet
        self.folder.round(number, measured, {}, metrics, items(self.setup.world))
        self.folder.devices(fleet.ledger.frame())
        if number % ROUNDS == 0 or len(fleet.ledger) > ROWS:
            self.folder.rotate(f"{number:09d}")
            fleet.ledger = Ledger()

    def _until_written(self, write: Callable[[], None]) -> None:
        """Write, again and again until the disk takes it: what was computed is kept in memory meanwhile."""
        waits = False
        while True:
            try:
                write()
                break
            except DiskError as err:
                if not waits:
                    log(ERROR, "the cloud waits for room: %s", err)
                waits = True
                with suppress(DiskError):  # a small file may still go
                    self._say("no room")
                self.sleep(ROOM)
        if waits:
            log(WARNING, "there is room again, and the cloud goes on")

    @property
    def lineage(self) -> Lineage | None:
        """The versions of the method's adapter; None = it has none."""
        return getattr(self.playing, "lineage", None)

    @property
    def version(self) -> int:
        """The newest of the adapter; of a method without versions the round."""
        return self.round if self.lineage is None else self.lineage.mirror.newest

    def _digest(self) -> str:
        return "" if self.lineage is None else self.lineage.mirror.digest.hex()

    def _has(self) -> dict[int, int]:
        """Device -> version that it said it has."""
        known = {} if self.lineage is None else self.lineage.known
        return {device: version for device, (version, _) in known.items()}

    def _measured(self) -> dict[str, float] | None:
        """Held-out accuracy by domain, of every so many versions."""
        if not self.own.accuracy_every or self.version % self.own.accuracy_every:
            return None
        with adapters.wearing(self.playing.model, self.playing.adapter_of(0)) as model:
            found = measure(model, self.setup.shared, self.setup.world).accuracy
        self.status.now["accuracy"] = {"version": self.version, "round": self.round, "domains": found}
        return found

    def _made(self, agreement: float | None, back: bool = False) -> None:
        self.status.made(self.version, self.round, self._digest(), agreement, back)

    # --- what is kept ---------------------------------------------------------------------------------------

    def _save(self, made: bool = True) -> None:
        """A checkpoint of now; `made`: this round made a version."""
        parts: dict[str, Part] = {name: part.state() for name, part in self.parts.items()}
        parts["arrays"] = {name: array.numpy() for name, array in self.arrays.items()}
        parts |= {"run": self._identity(), "nodes": self.nodes.state()}
        checkpoint.save(self.folder.checkpoints, self.round, parts)
        if made and all(name in self.parts for name in versions.NEEDED):
            versions.keep(self.folder.path, self.version, self.round, self.own.keep_versions)

    def back(self) -> None:
        """Go back to a version, where that is asked for."""
        wanted = versions.requested(self.cloud)
        if wanted is None:
            return
        was, said = self.version, {"version": wanted, "round": self.round, "time": self.status.clock()}
        try:
            versions.go_back(self.folder.path, wanted, self.parts)
        except RollbackError as err:
            log(ERROR, "no rollback: %s", err)
            newest = checkpoint.load_newest(self.folder.checkpoints)
            if newest is not None:
                self._take(Earlier(*newest))
            self.status.now["rollback"] = {**said, "from": was, "refused": str(err)}
        else:
            log(WARNING, "the cloud went back from version %s to %s", was, wanted)
            self.arrays = self.playing.initial_arrays()
            self.status.now["rollback"] = {**said, "from": was, "refused": ""}
            self._made(None, back=True)
            self._until_written(lambda: self._save(made=False))
        versions.forget(self.cloud)
        self._until_written(lambda: self._say("waiting"))

    def _say(self, state: str) -> None:
        now = {"state": state, "round": self.round, "version": self.version, "digest": self._digest()}
        now |= {"method": self.playing.name, "mode": self.own.rounds, "period": self.own.period}
        kept = versions.kept(self.folder.path)
        self.status.write(self.nodes, self._has(), kept, **now)
