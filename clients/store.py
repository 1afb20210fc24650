"""Adapters that devices hold, by their digest.

All devices of a version hold the same bits, so `context.state`, which travels with every message and stands
in every checkpoint, has a device's version and digest and not its adapter (300 KB and more). On our own grids
the adapters lie in `<out-dir>/adapters/<digest>.npy`, each written once by whoever has it first, for all
processes and for a run that is resumed; the server removes those that nobody needs (`fleet.adapter_files`).
On Flower's engines nobody sees all states, so a device has a folder of its own in there, with the adapter it
holds and the one before, for a process that dies before it has answered. With no `run.out-dir` the adapter is
in the state. A file is checked against its digest when it is read. One that is gone or damaged costs a device
its updates: it is back at version 0, and its answer says so."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from logging import WARNING
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context
from flwr.supercore import log

from cdc_flower.downlink import update
from cdc_flower.fleet.engines.adapter_files import FOLDER, PART, path_of, sweep
from cdc_flower.fleet.engines.local_grid import node_id
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_bytes

KEPT_BYTES = 2**28  # of adapters in memory, per process
_KEPT: OrderedDict[bytes, np.ndarray] = OrderedDict()  # by digest, those used last at the end
_HELD = "held"  # in context.state
_FLAT = "flat"  # in that record: the adapter itself, where there is no folder


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


def held(context: Context, initial: Adapter) -> Adapter:
    """The adapter a device holds: `initial` until it got an update, or when the one it got cannot be read."""
    record = context.state.config_records.get(_HELD)
    if record is None:
        return initial
    version, digest = int(record[keys.VERSION]), bytes(record[keys.DIGEST])  # type: ignore[arg-type]
    folder = _folder(context)
    if folder is None:
        return Adapter(version, digest, np.frombuffer(record[_FLAT], np.float32))  # type: ignore[arg-type]
    flat = _read(folder, digest)
    if flat is None:
        log(
            WARNING,
            "adapter %s of version %s cannot be read: the device is back at version %s",
            digest.hex(),
            version,
            initial.version,
        )
        return initial
    return Adapter(version, digest, flat)


def hold(context: Context, adapter: Adapter) -> None:
    """Keep an adapter for the next round.

    Raises:
        OSError: it cannot be written.
    """
    folder = _folder(context)
    record = ConfigRecord({keys.VERSION: adapter.version, keys.DIGEST: adapter.digest})
    if folder is None:
        record[_FLAT] = _data(adapter)
    else:
        _write(folder, adapter)
        if not _shared(context):
            sweep(folder, (state_bytes(context.state), adapter.digest))
    context.state[_HELD] = record


def _shared(context: Context) -> bool:
    """Whether all devices use one folder: on our grids, whose node ids say so (Flower's are random)."""
    return context.node_id == node_id(int(context.node_config.get(keys.DEVICE, -1)))


def _folder(context: Context) -> Path | None:
    out = str(context.run_config.get("run.out-dir", ""))
    if not out:
        return None
    folder = Path(out).expanduser() / FOLDER
    return folder if _shared(context) else folder / f"device-{context.node_config.get(keys.DEVICE, 0)}"


@lru_cache(maxsize=2)
def _data(adapter: Adapter) -> bytes:
    """Its bytes, once for all devices that hold it."""
    return adapter.flat.tobytes()


def _read(folder: Path, digest: bytes) -> np.ndarray | None:
    """The adapter of a digest; None where there is none, or a damaged one, whose file is then removed."""
    if digest in _KEPT:
        _KEPT.move_to_end(digest)
        return _KEPT[digest]
    path = path_of(folder, digest)
    try:
        flat = np.load(path, allow_pickle=False)
    except OSError:
        return None
    except (ValueError, EOFError):
        flat = None
    if not isinstance(flat, np.ndarray) or flat.dtype != np.float32 or update.digest(flat) != digest:
        path.unlink(missing_ok=True)
        return None
    flat.flags.writeable = False
    _keep(digest, flat)
    return flat


def _write(folder: Path, adapter: Adapter) -> None:
    target = path_of(folder, adapter.digest)
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".", suffix=PART, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, adapter.flat, allow_pickle=False)
            os.replace(part, target)
        finally:
            Path(part).unlink(missing_ok=True)
    _keep(adapter.digest, adapter.flat)


def _keep(digest: bytes, flat: np.ndarray) -> None:
    _KEPT[digest] = flat
    while len(_KEPT) > 1 and sum(kept.nbytes for kept in _KEPT.values()) > KEPT_BYTES:
        _KEPT.popitem(last=False)
