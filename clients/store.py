"""What a device keeps from round to round, in Flower's `context.state`: above all which adapter it holds.

All devices of a version hold the same bits, so the state, which travels with every message and stands in
every checkpoint, has a device's version and digest and not its adapter (300 KB and more). Where an engine
says that its devices share a folder (node config `adapters` = "shared"), the adapters lie in
`<out-dir>/adapters/<digest>.npy`, each written once by whoever has it first, for all processes and for a run
that is resumed; the server removes those that nobody needs (`fleet.engines.adapter_files`). Elsewhere nobody
sees all states, so a device has a folder of its own in there, with the adapter it holds and the one before,
for a process that dies before it has answered. With no `run.out-dir` the adapter is in the state. A file is
checked against its digest when it is read. One that is gone or damaged costs a device its updates: it is back
at version 0, and its answer says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from logging import WARNING
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.supercore import log

from cdc_flower.downlink import update
from cdc_flower.fleet.engines.adapter_files import FLAT, FOLDER, HELD, read, sweep, write
from cdc_flower.session import kept, session
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_bytes

KEPT_BYTES = 2**28  # of adapters in memory, per process
SHELF = "adapters by digest"
_SAID = "said"  # a record of the state, beside HELD


@dataclass(frozen=True)
class Adapter:
    """A version of the adapter; two are equal when version and digest are."""

    version: int
    digest: bytes  # 8 bytes, `update.digest` of flat
    flat: np.ndarray = field(compare=False, repr=False)  # (P,) float32, read-only: devices share it

    @classmethod
    def of(cls, flat: np.ndarray, version: int) -> Adapter:
        """Name an adapter; `flat` is not copied and cannot be written to from here on."""
        flat = np.ascontiguousarray(flat, np.float32)
        flat.flags.writeable = False
        return cls(version, update.digest(flat), flat)


@dataclass(frozen=True)
class Store:
    """The memory of one device.

    Attributes:
        state: the records that Flower keeps; a method may add its own, under its own name.
        folder: of adapters; None = they are in the state.
        shared: all devices use that folder, and somebody else removes what is not needed.
    """

    state: RecordDict
    folder: Path | None = None
    shared: bool = False

    @classmethod
    def of(cls, context: Context) -> Store:
        """The memory of the device that a context belongs to."""
        node, out = context.node_config, str(context.run_config.get("run.out-dir", ""))
        shared = node.get(keys.ADAPTERS) == keys.SHARED
        if not out:
            return cls(context.state)
        folder = Path(out).expanduser() / FOLDER
        return cls(context.state, folder if shared else folder / f"device-{node.get(keys.DEVICE, 0)}", shared)

    def held(self, initial: Adapter) -> Adapter:
        """The adapter of the device: `initial` until it got an update, or when that cannot be read."""
        record = self.state.config_records.get(HELD)
        if record is None:
            return initial
        version, digest = int(record[keys.VERSION]), bytes(record[keys.DIGEST])  # type: ignore[arg-type]
        if self.folder is None:
            return Adapter(version, digest, np.frombuffer(record[FLAT], np.float32))  # type: ignore[arg-type]
        flat = _read(self.folder, digest)
        if flat is None:
            lost = "adapter %s of version %s cannot be read: the device is back at version %s"
            log(WARNING, lost, digest.hex(), version, initial.version)
            return initial
        return Adapter(version, digest, flat)

    def hold(self, adapter: Adapter) -> None:
        """Keep an adapter for the next round.

        Raises:
            DiskError: it cannot be written.
        """
        record = ConfigRecord({keys.VERSION: adapter.version, keys.DIGEST: adapter.digest})
        if self.folder is None:
            record[FLAT] = _data(adapter)
        else:
            write(self.folder, adapter.digest, adapter.flat)
            _keep(adapter.digest, adapter.flat)
            if not self.shared:
                sweep(self.folder, (state_bytes(self.state), adapter.digest))
        self.state[HELD] = record

    def say(self, round: int, answers: Sequence[str]) -> None:
        """Keep what the device answered in a round."""
        self.state[_SAID] = ConfigRecord({keys.ROUND: round, keys.ANSWERS: list(answers)})

    def said(self, round: int) -> list[str]:
        """What the device answered in a round; nothing where it did not work in it, or in another since."""
        record = self.state.config_records.get(_SAID)
        return list(record[keys.ANSWERS]) if record and record[keys.ROUND] == round else []  # type: ignore[arg-type]


@kept(2)
def _data(adapter: Adapter) -> bytes:
    """Its bytes, once for all devices that hold it."""
    return adapter.flat.tobytes()


def _read(folder: Path, digest: bytes) -> np.ndarray | None:
    """The adapter of a digest; None where there is none, or a damaged one."""
    shelf = session().shelf(SHELF)
    if digest in shelf:
        shelf.move_to_end(digest)
        return shelf[digest]
    flat = read(folder, digest)
    if flat is not None:
        flat.flags.writeable = False
        _keep(digest, flat)
    return flat


def _keep(digest: bytes, flat: np.ndarray) -> None:
    shelf = session().shelf(SHELF)
    shelf[digest] = flat
    while len(shelf) > 1 and sum(held.nbytes for held in shelf.values()) > KEPT_BYTES:
        shelf.popitem(last=False)
