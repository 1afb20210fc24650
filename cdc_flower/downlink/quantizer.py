"""Dead-zone uniform quantiser: selection and quantisation of an update in one act.

`q = sign(x) * floor(|x| / step + rho)`: with `rho < 1/2` the bin around zero is wider than the others, so
small values are not sent at all and the rest costs about its information content. A value is rebuilt not in
the middle of its bin but at the measured centroid (one offset for |q| = 1, one for the rest), as in video
coding (Sullivan 1996, doi:10.1109/18.532878). A common step over tensors is the Lagrangian optimum at equal
importance; importance weights scale the step of a tensor by `w ** -1/2`, rounded to eighths of an octave.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SMALLEST_STEP = float(np.finfo(np.float32).tiny)
LARGEST = float(np.finfo(np.float32).max)
MAX_EXPONENT = 64  # eighths of an octave: a tensor's step is at most 2**8 from the common one
_OFFSET_UNIT = 1.0 / 128  # of a step; a byte covers -0.5 .. 1.49
NEUTRAL = (64, 64)  # the offsets with which magnitude m is m steps
_TABLED = 1024  # magnitudes whose values are looked up where there are many
_EIGHTHS = np.array([32768, 35734, 38968, 42495, 46341, 50535, 55109, 60097], np.float64) / 32768  # 2**(k/8)


class Offsets:
    """The centroid offsets of a class, whose symbols are added in parts."""

    def __init__(self):
        self._counts = self._sums = (0, 0)

    def add(self, ratio: NDArray[np.floating], magnitude: NDArray[np.integer]) -> None:
        """Count non-zero symbols.

        Args:
            ratio: |x| / step.
            magnitude: |q|, >= 1.
        """
        excess = ratio - magnitude
        ones = excess[magnitude == 1]
        of_ones = float(ones.sum(dtype=np.float64))
        some = (len(ones), len(excess) - len(ones)), (of_ones, float(excess.sum(dtype=np.float64)) - of_ones)
        self._counts, self._sums = (
            (a[0] + b[0], a[1] + b[1]) for a, b in zip((self._counts, self._sums), some, strict=True)
        )

    def pair(self) -> tuple[int, int]:
        """The offsets, as bytes, of the bins of magnitude 1 and of all larger ones."""
        means = (total / n if n else 0.0 for total, n in zip(self._sums, self._counts, strict=True))
        first, second = (min(max(round((mean + 0.5) / _OFFSET_UNIT), 0), 255) for mean in means)
        return first, second


def dequantize(
    magnitude: NDArray[np.int64],
    negative: NDArray[np.bool_],
    offset: tuple[int, int],
    step: float | NDArray[np.float64],
) -> NDArray[np.float32]:
    """float32 values of non-zero symbols. One fixed order of float64 operations: the same bits on every
    machine."""
    if isinstance(step, float) and len(magnitude) > _TABLED and magnitude.max() < _TABLED:
        value = _values(np.arange(_TABLED), offset, step)[magnitude]
    else:
        value = _values(magnitude, offset, step)
    np.negative(value, out=value, where=negative)
    return value


def _values(magnitude, offset, step) -> NDArray[np.float32]:
    shift = np.where(magnitude == 1, offset[0], offset[1]) * _OFFSET_UNIT - 0.5
    return np.minimum((magnitude + shift) * step, LARGEST).astype(np.float32)


def step_factors(exponents: NDArray[np.int8]) -> NDArray[np.float64]:
    """2**(e/8) of each tensor's exponent, from integers: the same bits on every machine."""
    e = exponents.astype(np.int64)
    return np.ldexp(_EIGHTHS[e % 8], e // 8)


def step_exponents(weights: Sequence[float], tensors: int, unit: int = 1) -> NDArray[np.int8]:
    """Exponents of the tensors' steps for importance weights: step ~ weight**-1/2 around their geometric
    mean, in multiples of `unit` eighths of an octave.

    Raises:
        ValueError: not one positive finite weight per tensor.
    """
    w = np.asarray(weights, np.float64)
    if w.shape != (tensors,) or not (np.isfinite(w).all() and (w > 0).all()):
        raise ValueError(f"weights must be {tensors} positive finite numbers, one per tensor")
    logs = np.log2(w)
    exponents = unit * np.rint(-4 / unit * (logs - logs.mean()))
    return np.clip(exponents, -MAX_EXPONENT, MAX_EXPONENT).astype(np.int8)


def floor_step(energy: float, nonzero: int, relative_error: float) -> float:
    """The step at which uniform quantisation leaves about this relative error (root of the energy share).

    Args:
        energy: the sum of squares of what is quantised.
        nonzero: how many of its elements are not zero.
        relative_error: to be left.
    """
    return max(relative_error * float(np.sqrt(12 * energy / max(nonzero, 1))), SMALLEST_STEP)
