"""A change of weights as a LOW_RANK frame: each matrix by its largest singular values (arXiv 2108.13323).

Of a matrix (m, n) as many singular values stay as hold a share `energy` of the sum of their squares; it goes
as two factors in float16, (m, k) and (k, n), each with the roots of the singular values. Where these are no
fewer values than the matrix has, and for vectors, the values themselves go in float16. Section 1 is a rank a
tensor, u16 in the order of the layout (65,535 = whole), section 2 all values. Nothing is kept for the next
change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from cdc_flower.wire.frame import FrameError, Kind, envelope, pack, unpack

WHOLE = 0xFFFF
Shapes = Sequence[tuple[int, ...]]


def longest(shapes: Shapes) -> int:
    """Bytes of a frame in which every tensor is whole."""
    return envelope(2) + 2 * len(shapes) + 2 * sum(map(prod, shapes))


def _values(shape: tuple[int, ...], rank: int) -> int:
    """Values that a tensor takes with a rank."""
    return prod(shape) if rank == WHOLE else rank * sum(shape)


def _parts(flat: NDArray[np.float32], shapes: Shapes) -> Iterator[NDArray[np.float32]]:
    ends = np.cumsum([prod(shape) for shape in shapes])[:-1]
    return (part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes, strict=True))


def _coded(tensor: NDArray[np.float32], energy: float) -> tuple[int, list[NDArray[np.float32]]]:
    """The rank of a tensor, and the values it takes."""
    if not tensor.any():
        return 0, []
    if tensor.ndim != 2:
        return WHOLE, [tensor.ravel()]
    u, s, v = (x.numpy() for x in torch.linalg.svd(torch.from_numpy(tensor.copy()), full_matrices=False))
    held = np.cumsum(s.astype(np.float64) ** 2)
    rank = min(len(s), int(np.searchsorted(held, energy * held[-1])) + 1)
    if rank >= WHOLE or _values(tensor.shape, rank) >= tensor.size:
        return WHOLE, [tensor.ravel()]
    root = np.sqrt(s[:rank])
    return rank, [(u[:, :rank] * root).ravel(), (root[:, None] * v[:rank]).ravel()]


def encode(change: NDArray[np.float32], shapes: Shapes, energy: float) -> bytes:
    """The frame of a change (P,) of tensors of these shapes."""
    found = [_coded(tensor, energy) for tensor in _parts(change, shapes)]
    ranks = np.array([rank for rank, _ in found], "<u2")
    values = np.concatenate([np.zeros(0, np.float32), *(part for _, parts in found for part in parts)])
    with np.errstate(over="ignore"):
        return pack(Kind.LOW_RANK, ranks.tobytes(), values.astype("<f2").tobytes())


def decode(data: bytes, shapes: Shapes) -> NDArray[np.float32]:
    """The change (P,) float32 of a frame, which may come from anybody.

    Raises:
        FrameError: no such frame, a rank that saves nothing, other values than the ranks take, or one that is
            not finite.
    """
    sections = unpack(data, Kind.LOW_RANK, longest(shapes))
    if len(sections) != 2 or len(sections[0]) != 2 * len(shapes):
        raise FrameError(f"LOW_RANK: other sections; allowed: two, {len(shapes)} ranks in the first")
    ranks = np.frombuffer(sections[0], "<u2").astype(int).tolist()
    for shape, rank in zip(shapes, ranks, strict=True):
        if rank not in (0, WHOLE) and (len(shape) != 2 or _values(shape, rank) >= prod(shape)):
            raise FrameError(f"LOW_RANK: rank {rank} of {shape}; allowed: one that takes fewer values")
    sizes = [_values(shape, rank) for shape, rank in zip(shapes, ranks, strict=True)]
    if len(sections[1]) != 2 * sum(sizes):
        raise FrameError(f"LOW_RANK: {len(sections[1])} bytes of values; allowed: {2 * sum(sizes)}")
    values = np.frombuffer(sections[1], "<f2").astype(np.float32)
    if not np.isfinite(values).all():
        raise FrameError("LOW_RANK: a value is not finite")
    found, at = [np.zeros(0, np.float32)], 0
    for shape, rank, size in zip(shapes, ranks, sizes, strict=True):
        own, at = values[at : at + size], at + size
        if rank == WHOLE:
            found.append(own)
        elif rank == 0:
            found.append(np.zeros(prod(shape), np.float32))
        else:
            left, right = own[: shape[0] * rank].reshape(-1, rank), own[shape[0] * rank :].reshape(rank, -1)
            found.append((left @ right).ravel())
    return np.concatenate(found)


def beyond(change: NDArray[np.float32], shapes: Shapes, most: float) -> int:
    """How many tensors of a change are longer than they can be if no weight moved by more than `most`.

    Leaving singular values out makes no matrix longer, float16 by a thousandth.
    """
    norms = [(float(np.linalg.norm(part)), part.size**0.5) for part in _parts(change, shapes)]
    return sum(norm > 1.01 * most * root + 1e-3 for norm, root in norms)
