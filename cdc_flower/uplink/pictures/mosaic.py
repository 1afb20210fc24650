"""Parts of a picture as one smaller picture: the patches of the kept tokens, and the canvas they go back to.

Token i of a tower is that of the patch in row i // cols and column i % cols of the picture's grid. The mosaic
holds the kept ones in their order, row by row, in a rectangle that is near a square and has few cells to
spare; those repeat the last patch, which costs a codec next to nothing.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray


def shape(count: int) -> tuple[int, int]:
    """Rows and columns of a mosaic of so many patches: fewest cells, then nearest to a square.

    Raises:
        ValueError: no patch.
    """
    if count < 1:
        raise ValueError("a mosaic of no patch; allowed: at least one")
    widest = isqrt(count)
    rows = min(range((widest + 1) // 2, widest + 1), key=lambda r: (r * -(-count // r), -r))
    return rows, -(-count // rows)


def _cells(pixels: NDArray[np.uint8], patch: int) -> NDArray[np.uint8]:
    """Patches (n, patch, patch, 3) of pixels (H, W, 3), row by row."""
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    return pixels.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2).reshape(-1, patch, patch, 3)


def _picture(cells: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """The inverse of `_cells`."""
    patch = cells.shape[1]
    grid = cells.reshape(rows, -1, patch, patch, 3).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(rows * patch, -1, 3))


def cut(pixels: NDArray[np.uint8], positions: NDArray[np.integer], patch: int) -> NDArray[np.uint8]:
    """The mosaic (rows * patch, columns * patch, 3) uint8 of some patches of a picture.

    Args:
        pixels: (H, W, 3) uint8, whole patches.
        positions: (K,) tokens whose patches are kept, at least one.
        patch: pixels of a patch's side; it divides both of the picture's.
    """
    rows, columns = shape(len(positions))
    order = np.append(positions, np.repeat(positions[-1:], rows * columns - len(positions)))
    return _picture(_cells(pixels, patch)[order.astype(np.int64)], rows)


def place(
    pixels: NDArray[np.uint8],
    positions: NDArray[np.integer],
    rows: int,
    cols: int,
    patch: int,
    grey: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """The canvas (rows * patch, cols * patch, 3) uint8 with the patches of a mosaic where they belong.

    Args:
        pixels: what `cut` gave.
        positions: those it was given.
        rows, cols: of the canvas, in patches.
        patch: pixels of a patch's side.
        grey: (3,) uint8, the colour of all that was not sent.
    """
    cells = np.broadcast_to(grey, (rows * cols, patch, patch, 3)).astype(np.uint8)
    cells[np.asarray(positions, np.int64)] = _cells(pixels, patch)[: len(positions)]
    return _picture(cells, rows)
