"""The adapters that devices hold, as files: each once, named by its digest, removed when no device has it.

A device's state names its adapter by an 8-byte digest. What is still needed is found as a conservative
garbage collector finds it (Boehm and Weiser, 1988): a file stays while its digest occurs anywhere in the
states that count, so nothing here has to know what a state is made of. Which states count is for the owner of
the folder to say: of all devices and of all checkpoints that may be resumed, or of the one device whose
folder it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cdc_flower.disk import PART, whole, writing
from cdc_flower.downlink import update
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_of

FOLDER = "adapters"  # in the run folder
HELD = "held"  # the record of a state that names its device's adapter, under `keys.DIGEST`
FLAT = "flat"  # in it: the adapter itself, where there is no folder
_NAME = re.compile(r"([0-9a-f]{16})\.npy")


def path_of(folder: Path, digest: bytes) -> Path:
    """The file of an adapter; `digest` has 8 bytes."""
    return folder / f"{digest.hex()}.npy"


def read(folder: Path, digest: bytes) -> np.ndarray | None:
    """The adapter (P,) float32 of a digest; None where there is none, or a damaged one, whose file goes."""
    path = path_of(folder, digest)
    try:
        flat = np.load(path, allow_pickle=False)
    except OSError:
        return None
    except Exception:  # whatever is in there
        flat = None
    if not isinstance(flat, np.ndarray) or flat.dtype != np.float32 or update.digest(flat) != digest:
        path.unlink(missing_ok=True)
        return None
    return flat


def write(folder: Path, digest: bytes, flat: np.ndarray) -> None:
    """Keep an adapter, where it is not kept already.

    Raises:
        DiskError: the disk does not take it.
    """
    path = path_of(folder, digest)
    if path.exists():
        return
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            np.save(file, flat, allow_pickle=False)


def lost(folder: Path, states: Mapping[int, bytes]) -> dict[int, bytes]:
    """Device -> the digest of its adapter, of the devices whose adapter is gone or damaged.

    Args:
        folder: may be absent.
        states: device -> its serialised state.
    """
    records = {device: state_of(state).config_records.get(HELD) for device, state in states.items()}
    named: dict[int, bytes] = {
        device: bytes(record[keys.DIGEST])  # type: ignore[arg-type]
        for device, record in records.items()
        if record and keys.DIGEST in record and FLAT not in record
    }
    there = {digest: read(folder, digest) is not None for digest in set(named.values())}
    return {device: digest for device, digest in named.items() if not there[digest]}


def sweep(folder: Path, states: Iterable[bytes]) -> int:
    """Remove the adapters that no state names, and what a killed process left half written.

    To be called while nobody writes there. Files of other names stay.

    Args:
        folder: may be absent.
        states: serialised states of devices.

    Returns:
        How many adapters are left.
    """
    if not folder.is_dir():
        return 0
    named, left = b"".join(states), 0
    for path in folder.iterdir():
        adapter = _NAME.fullmatch(path.name)
        if adapter is not None and bytes.fromhex(adapter[1]) in named:
            left += 1
        elif adapter is not None or path.name.endswith(PART):
            path.unlink(missing_ok=True)
    return left
