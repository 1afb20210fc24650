"""Files and adapters for workers on other machines, so that the machines of a cluster share no folder.

Workers on the driver's machine read its files where they are. A worker elsewhere asks the `Depot`, an actor
on the driver's machine, through Ray. What devices read (checkpoint, streams, vision tokens) it puts below the
cache folder of its own machine, each file named by its sha256, once a machine, and points the settings there.
Adapters are never files there: they come into the states of the devices that are to work, and leave them
before the states go back, so that a state on the driver has the bytes that every engine gives it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import WARNING
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.supercore import log

from cdc_flower.config import RunError
from cdc_flower.data.features import cache_folder
from cdc_flower.disk import DiskError, whole, writing
from cdc_flower.fleet.engines import adapter_files
from cdc_flower.fleet.engines.adapter_files import FLAT, FOLDER, HELD
from cdc_flower.wire import keys

BLOCK = 2**26  # bytes of a file that travel at a time
KEPT_BYTES = 2**28  # of adapters that the depot keeps in Ray's object store
OUT = "run.out-dir"
NODES = "nodes"  # in the cache folder: what came from other machines

Files = Mapping[str, tuple[str, Mapping[str, Path]]]
"""A setting that names a folder -> the folder's name, and what is in it: name there -> file here."""
Listing = dict[str, tuple[str, dict[str, tuple[str, int]]]]
"""The same with sha256 (hex) and size in place of the file."""


class Depot:
    """What runs on the driver's machine.

    Args:
        out: the run folder; "" where devices carry their adapters themselves.
        files: what devices read.
    """

    def __init__(self, out: str, files: Files) -> None:
        self._adapters = Path(out).expanduser() / FOLDER if out else None
        self._files, self._paths = files, dict[str, Path]()
        self._listing: Listing | None = None
        self._refs: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()

    def listing(self) -> Listing:
        """What there is."""
        if self._listing is None:
            made: Listing = {}
            for setting, (name, files) in self._files.items():
                made[setting] = name, {}
                for inside, path in files.items():
                    with path.open("rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                    self._paths[digest] = path
                    made[setting][1][inside] = digest, path.stat().st_size
            self._listing = made
        return self._listing

    def block(self, digest: str, start: int) -> bytes:
        """`BLOCK` bytes of a listed file, or what is left of it."""
        with self._paths[digest].open("rb") as file:
            file.seek(start)
            return file.read(BLOCK)

    def adapter(self, digest: bytes) -> list[Any]:
        """A reference to an adapter (P,) float32 in the object store, which brings it to a machine once; []
        where there is none that can be read.
        """
        import ray

        if digest in self._refs:
            self._refs.move_to_end(digest)
            return [self._refs[digest][0]]
        flat = None if self._adapters is None else adapter_files.read(self._adapters, digest)
        if flat is None:
            return []
        ref = ray.put(flat)
        self._refs[digest] = ref, flat.nbytes
        while len(self._refs) > 1 and sum(size for _, size in self._refs.values()) > KEPT_BYTES:
            self._refs.popitem(last=False)
        return [ref]

    def lacks(self, digests: Sequence[bytes]) -> list[bytes]:
        """Those whose adapter is not in the run folder."""
        assert self._adapters is not None
        return [d for d in digests if not adapter_files.path_of(self._adapters, d).exists()]

    def keep(self, adapters: Mapping[bytes, np.ndarray]) -> None:
        """Write adapters into the run folder.

        Raises:
            DiskError: the disk does not take one.
        """
        assert self._adapters is not None
        for digest, flat in adapters.items():
            adapter_files.write(self._adapters, digest, flat)


def depot(out: str, files: Files) -> tuple[Any, str]:
    """Start a depot on this machine: its handle, and Ray's name of the machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    home = node()
    here = NodeAffinitySchedulingStrategy(home, soft=False)
    return ray.remote(num_cpus=0)(Depot).options(scheduling_strategy=here).remote(out, files), home


def node() -> str:
    """Ray's name of the machine of this process; "" where it has nothing to do with Ray."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


class Guest:
    """What a worker on another machine has of a run.

    Attributes:
        settings: the run config, with folders of this machine.

    Args:
        handle: of the depot.
        run_config: of the driver.

    Raises:
        DiskError: the cache folder does not take a file.
    """

    def __init__(self, handle: Any, run_config: Mapping[str, Any]) -> None:
        self._depot = handle
        self._moves = bool(run_config.get(OUT))  # else adapters are in the states on every machine
        self._flats: OrderedDict[bytes, bytes] = OrderedDict()
        places = fetched(
            cache_folder() / NODES,
            _answer(handle.listing.remote()),
            lambda digest, start: _answer(handle.block.remote(digest, start)),
        )
        self.settings = {**run_config, OUT: "", **{name: str(place) for name, place in places.items()}}

    def enter(self, states: Iterable[RecordDict]) -> None:
        """Give states the adapters that they name. One that is lost costs its device its updates."""
        import ray

        if not self._moves:
            return
        named = [(state, state.config_records[HELD]) for state in states if HELD in state.config_records]
        wanted = {bytes(held[keys.DIGEST]) for _, held in named}  # type: ignore[arg-type]
        asked = [digest for digest in wanted if digest not in self._flats]
        found = _answer([self._depot.adapter.remote(digest) for digest in asked])
        for digest, refs in zip(asked, found, strict=True):
            if refs:
                flat: Any = ray.get(refs[0])
                self._flats[digest] = flat.tobytes()
        for state, held in named:
            digest = bytes(held[keys.DIGEST])  # type: ignore[arg-type]
            if digest in self._flats:
                held[FLAT] = self._flats[digest]
            else:
                log(WARNING, "adapter %s cannot be read: its device is back at version 0", digest.hex())
                del state[HELD]

    def leave(self, states: Iterable[RecordDict]) -> None:
        """Take the adapters out of the states again; new ones go to the depot.

        Raises:
            DiskError: the disk of the driver's machine does not take one.
        """
        if not self._moves:
            return
        new: dict[bytes, bytes] = {}
        for state in states:
            held = state.config_records.get(HELD)
            if held is not None and FLAT in held:
                digest, flat = bytes(held[keys.DIGEST]), held.pop(FLAT)  # type: ignore[arg-type]
                if digest not in self._flats:
                    new[digest] = flat  # type: ignore[assignment]
        absent = _answer(self._depot.lacks.remote(list(new))) if new else []
        if absent:
            flats = {digest: np.frombuffer(new[digest], np.float32) for digest in absent}
            _answer(self._depot.keep.remote(flats))
        self._flats.update(new)
        while len(self._flats) > 1 and sum(map(len, self._flats.values())) > KEPT_BYTES:
            self._flats.popitem(last=False)


def _answer(asked: Any) -> Any:
    """What the depot says, or raises."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(asked)
    except RayTaskError as err:
        if isinstance(err.cause, RunError):
            raise err.cause from None
        raise


def fetched(root: Path, listing: Listing, block: Callable[[str, int], bytes]) -> dict[str, Path]:
    """Bring listed files below a folder of this machine, where they are not there already: setting -> folder.
    Of the workers of a machine one does it and the others wait.

    Args:
        root: the folder.
        listing: see `Depot.listing`.
        block: see `Depot.block`.

    Raises:
        DiskError: the disk does not take a file, or what came is not what was listed.
    """
    found: dict[str, Path] = {}
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for setting, (name, files) in listing.items():
            tree = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:24]
            found[setting] = place = root / tree / name
            for inside, (digest, size) in files.items():
                stored = root / "files" / digest
                if not stored.is_file() or stored.stat().st_size != size:
                    _fetch(stored, digest, size, block)
                _link(place / PurePosixPath(inside), stored)
    return found


def _fetch(path: Path, digest: str, size: int, block: Callable[[str, int], bytes]) -> None:
    seen = hashlib.sha256()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            for start in range(0, size, BLOCK):
                data = block(digest, start)
                seen.update(data)
                file.write(data)
            if seen.hexdigest() != digest:
                raise DiskError(f"'{path}': the file has changed on the driver's machine while it came")


def _link(path: Path, stored: Path) -> None:
    with writing(path):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(os.path.relpath(stored, path.parent))
