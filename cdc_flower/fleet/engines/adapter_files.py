"""The adapters that devices hold, as files: each once, named by its digest, removed when no device has it.

A device's state names its adapter by an 8-byte digest. What is still needed is found as a conservative
garbage collector finds it (Boehm and Weiser, 1988): a file stays while its digest occurs anywhere in the
states that count, so nothing here has to know what a state is made of. Which states count is for the owner of
the folder to say: of all devices and of all checkpoints that may be resumed, or of the one device whose
folder it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = "adapters"  # in the run folder
PART = ".part"  # ends the name of a file that is being written
_NAME = re.compile(r"([0-9a-f]{16})\.npy")


def path_of(folder: Path, digest: bytes) -> Path:
    """The file of an adapter; `digest` has 8 bytes."""
    return folder / f"{digest.hex()}.npy"


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
