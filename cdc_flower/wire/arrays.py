"""One flat array as Flower carries it (`numpy.save`), read without believing its header.

numpy allocates what a header claims before it looks at the bytes, and parses the header as Python; a
stranger's array of 128 bytes could ask for terabytes. Here the header must be the one that numpy writes for
the array that is expected, and nothing is allocated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cdc_flower.wire.frame import FrameError

_MAGIC = b"\x93NUMPY\x01\x00"
_START = len(_MAGIC) + 2  # the length of the header, u16, follows the magic


def read_flat(data: bytes, size: int, dtype: str = "<f2") -> NDArray:
    """The array (size,) that was saved.

    Args:
        data: what `numpy.save` wrote.
        size: elements that it must have.
        dtype: as numpy writes it, little-endian.

    Raises:
        FrameError: anything but a flat array of this type and size, or a value that is not finite.
    """
    kind = np.dtype(dtype)
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({size},), }}".encode()
    at = _START + int.from_bytes(data[_START - 2 : _START], "little")
    found = data[_START:at]
    if not data.startswith(_MAGIC) or found.rstrip() != header:
        says = bytes(found[:80]).decode("ascii", "replace").strip() or "nothing that numpy saves"
        raise FrameError(f"array: {says!r}; allowed: {kind.name} of shape ({size},)")
    if len(data) != at + size * kind.itemsize:
        raise FrameError(f"array: {len(data)} bytes; allowed: {at + size * kind.itemsize}")
    flat = np.frombuffer(data, kind, size, at)
    if not np.isfinite(flat).all():
        raise FrameError("array: a value is not finite")
    return flat
