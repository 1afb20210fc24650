"""A run's state on disk, so that a killed run goes on bit for bit where it was.

One file per round, `round-000012.ckpt`: a fixed head (magic, format, round, length, sha256 over all of it)
and named parts in safetensors, a format that holds arrays and runs no code. A file is written beside its
name, flushed to the disk and moved over it, so a crash leaves the file before or the file after, never half a
one; what was torn or changed all the same (a full disk, a bad sector) fails its checksum and the one before
it is used. The checksum is no signature: whoever can write into the folder can change a run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from safetensors.numpy import load as _load
from safetensors.numpy import save as _save

from cdc_flower.disk import keep_names, writing

Value = np.ndarray | bytes | int | float | str
Part = dict[str, Value]
"""What an owner saves: flat, names to values."""

FORMAT = 1
MAGIC = b"cdc.ckpt"
MAX_BYTES = 2**34  # a larger file is skipped unread
_HEAD = struct.Struct("<8sIQQ")  # magic, format, round, bytes of the payload
_DIGEST = hashlib.sha256().digest_size
_TABLE = ""  # the tensor that says what the others are: no array can have that name
_NAME = re.compile(r"round-(\d{6,})\.ckpt")
_TEMP = re.compile(r"\.round-\d{6,}\.ckpt\.\d+\.tmp")
_log = logging.getLogger(__name__)


class Saved(Protocol):
    """Who has state to go on with: a fresh object that was given `load(state())` goes on as the old one."""

    def state(self) -> Part:
        """What `load` needs to go on from here."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        ...


class CheckpointError(ValueError):
    """A file that is no complete checkpoint of this format; the message says why."""


def path_of(folder: Path, round: int) -> Path:
    """The file of a round."""
    return folder / f"round-{round:06d}.ckpt"


def found(folder: Path) -> dict[int, Path]:
    """Round -> its file, oldest first; {} where there is no folder."""
    files = [p for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
    rounds = {int(m[1]): p for p in files if (m := _NAME.fullmatch(p.name))}
    return dict(sorted(rounds.items()))


def save(folder: Path, round: int, parts: Mapping[str, Mapping[str, Value]], keep: int = 2) -> Path:
    """Write the checkpoint of a round; afterwards it is on the disk, or the older ones are as they were.

    Files of later rounds are removed, because they belong to a lineage that was left behind.

    Args:
        folder: made when absent.
        round: from 0.
        parts: name of the part -> name -> value. Arrays have a plain numeric or boolean type.
        keep: files left in the folder, this one among them; at least 1.

    Raises:
        TypeError: a value of another type, e.g. bool or an array of objects.
        DiskError: the disk does not take it; the older ones are as they were.
    """
    target, payload = path_of(folder, round), _packed(parts)
    with writing(target):
        _write(folder, target, round, payload)
        older = [r for r in found(folder) if r < round]
        _clean(folder, {round, *older[len(older) - min(keep - 1, len(older)) :]})
    return target


def _write(folder: Path, target: Path, round: int, payload: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    head = _HEAD.pack(MAGIC, FORMAT, round, len(payload))
    digest = hashlib.sha256(head)
    digest.update(payload)
    temp = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        with temp.open("wb") as file:
            file.writelines((head, digest.digest(), payload))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, target)
    finally:
        temp.unlink(missing_ok=True)
    keep_names(folder)


def load_newest(folder: Path, max_bytes: int = MAX_BYTES) -> tuple[int, dict[str, Part]] | None:
    """The newest checkpoint that is whole, None where there is none.

    One warning for each newer file that is not, with its name and why. Temporary files of a crash are
    removed.
    """
    _clean(folder, set(found(folder)))
    for round, path in reversed(found(folder).items()):
        try:
            return round, read(path, round, max_bytes)
        except (OSError, CheckpointError) as err:
            why = err.strerror if isinstance(err, OSError) else err
            _log.warning("checkpoint %s is skipped: %s", path, why)
    return None


def _clean(folder: Path, left: set[int]) -> None:
    """Remove the checkpoints of other rounds than `left`, and temporary files."""
    for round, path in found(folder).items():
        if round not in left:
            path.unlink(missing_ok=True)
    for path in folder.iterdir() if folder.is_dir() else ():
        if _TEMP.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _packed(parts: Mapping[str, Mapping[str, Value]]) -> bytes:
    table: dict[str, dict[str, list[Any]]] = {}
    tensors: dict[str, np.ndarray] = {}
    for part, values in parts.items():
        table[part] = {}
        for name, value in values.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and value.dtype.itemsize <= 8:
                kind, array = "array", value if value.flags.c_contiguous else value.copy(order="C")
            elif isinstance(value, bytes):
                kind, array = "bytes", np.frombuffer(value, np.uint8)
            elif isinstance(value, int | float | str) and not isinstance(value, bool):
                table[part][name] = ["value", value]
                continue
            else:
                what = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
                raise TypeError(f"{part}.{name} is {what}; allowed: a plain array, bytes, int, float, str")
            table[part][name] = [kind, str(len(tensors))]
            tensors[str(len(tensors))] = array
    tensors[_TABLE] = np.frombuffer(json.dumps(table).encode("ascii"), np.uint8)
    return _save(tensors)


def read(path: Path, round: int, max_bytes: int = MAX_BYTES) -> dict[str, Part]:
    """The parts of a checkpoint, which may have been given another name.

    Sizes are checked before memory is taken, and the checksum before anything is interpreted.

    Raises:
        CheckpointError: it is not whole, or of another round.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise CheckpointError(f"it has {size} bytes, more than {max_bytes}")
        if size < _HEAD.size + _DIGEST:
            raise CheckpointError(f"it has {size} bytes, fewer than a head")
        head = file.read(_HEAD.size)
        magic, form, own_round, length = _HEAD.unpack(head)
        if magic != MAGIC:
            raise CheckpointError("it does not begin as a checkpoint does")
        if form != FORMAT:
            raise CheckpointError(f"it has format {form}, this version reads {FORMAT}")
        if size != _HEAD.size + _DIGEST + length:
            raise CheckpointError(f"it has {size} bytes, its head says {_HEAD.size + _DIGEST + length}")
        if own_round != round:
            raise CheckpointError(f"it is of round {own_round}")
        expected, digest = file.read(_DIGEST), hashlib.sha256(head)
        _feed(file, digest)
        if digest.digest() != expected:
            raise CheckpointError("its checksum is wrong")
        file.seek(_HEAD.size + _DIGEST)
        payload = file.read(length)
    try:
        return _unpacked(payload)
    except Exception as err:  # a checksum that fits and a payload that does not: written by someone else
        raise CheckpointError(f"its payload cannot be read: {' '.join(str(err).split())}") from None


def _feed(file: BinaryIO, digest: Any) -> None:
    while chunk := file.read(2**20):
        digest.update(chunk)


def _unpacked(payload: bytes) -> dict[str, Part]:
    tensors = _load(payload)
    table = json.loads(tensors[_TABLE].tobytes())
    return {part: {n: _value(v, tensors) for n, v in values.items()} for part, values in table.items()}


def _value(entry: list[Any], tensors: Mapping[str, np.ndarray]) -> Value:
    kind, value = entry
    if kind == "value":
        return value
    array = tensors[value]
    return array.tobytes() if kind == "bytes" else array.copy()
