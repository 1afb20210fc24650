"""The decorrelating transform of vision tokens: PCA of the tower's outputs, provisioned with the models.

Components of a tower's output are correlated; a scalar quantiser with an entropy coder pays for that in every
value (transform coding, e.g. Goyal 2001). The cloud estimates mean and principal axes once, from tower
outputs of unlabelled source pictures, and puts them into the pair folder, from which both ends load them. The
axes are orthonormal, so one step for all components is the best a uniform quantiser can do and an error is as
large in tokens as in components; components are grouped by variance, so that each group has a coding model of
its own.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cdc_flower.config import ConfigError

FILE = "transform.safetensors"  # in a pair folder
DIGEST_BYTES = 8
_BLOCK = 64  # pictures read together
GROUPS = 8  # of components; 16 save 1 % of a frame more at most, and cost each frame their tables


@dataclass(frozen=True, eq=False)
class Transform:
    """y = (x - mean) @ axes, x = y @ axes.T + mean.

    Attributes:
        mean: (D,) float32.
        axes: (D, D) float32, orthonormal columns.
        variance: (D,) float32, of each component, falling.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    variance: NDArray[np.float32]

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes of blake2b over the float32 bytes of mean, axes and variance, little-endian."""
        parts = (np.ascontiguousarray(a, "<f4").tobytes() for a in (self.mean, self.axes, self.variance))
        return hashlib.blake2b(b"".join(parts), digest_size=DIGEST_BYTES).digest()

    @cached_property
    def groups(self) -> tuple[slice, ...]:
        """At most `GROUPS` ranges of components, equally wide in log variance; none is empty.

        The edges are found by comparing powers of rational numbers: the same on every machine.
        """
        floor = max(float(self.variance[0]) * 2.0**-20, 1e-30)
        exact = [Fraction(max(float(v), floor)) for v in self.variance]
        first, last = exact[0], exact[-1]
        edges = [0]
        for j in range(1, GROUPS if first > last else 1):  # v is j / GROUPS of the way, in logarithms
            bound = first ** (GROUPS - j) * last**j
            edges.append(bisect_left(exact, -bound, key=lambda v: -(v**GROUPS)))
        edges = sorted({*edges, len(exact)})
        return tuple(slice(a, b) for a, b in pairwise(edges))

    def forward(self, centred: NDArray[np.floating]) -> NDArray[np.float64]:
        """Components (M, D) of tokens (M, D) from which the mean was taken."""
        return centred.astype(np.float64) @ self.axes.astype(np.float64)

    def inverse(self, components: NDArray[np.floating]) -> NDArray[np.float32]:
        """Tokens (M, D) float32 of components (M, D)."""
        tokens = components.astype(np.float64) @ self.axes.T.astype(np.float64) + self.mean
        with np.errstate(over="ignore"):
            return tokens.astype(np.float32)


def estimate(tokens: NDArray[np.floating], pictures: int = 2000) -> Transform:
    """The transform of tower outputs, read twice in blocks of pictures; memory grows with D * D alone.

    Args:
        tokens: (pictures, N, D), of unlabelled source pictures; `World.train_tokens` has this form.
        pictures: at most so many are read, evenly spread.

    Raises:
        ValueError: fewer than D tokens.
    """
    rows = np.unique(np.linspace(0, len(tokens) - 1, min(pictures, len(tokens))).astype(int))
    count, width = len(rows) * tokens.shape[1], tokens.shape[-1]
    if count < width:
        raise ValueError(f"{count} tokens of width {width}; allowed: at least the width")
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    mean = sum(np.asarray(tokens[b], np.float64).sum(axis=(0, 1)) for b in blocks) / count
    covariance = np.zeros((width, width))
    for block in blocks:
        centred = np.asarray(tokens[block], np.float64).reshape(-1, width) - mean
        covariance += centred.T @ centred
    variance, axes = np.linalg.eigh(covariance / count)
    falling = np.argsort(-variance, kind="stable")
    return Transform(
        mean.astype(np.float32),
        np.ascontiguousarray(axes[:, falling], np.float32),
        np.maximum(variance[falling], 0).astype(np.float32),
    )


def save(transform: Transform, folder: Path, tower_digest: str) -> Path:
    """Write `transform.safetensors` into a pair folder, for the tower it was estimated of."""
    arrays = {name: np.ascontiguousarray(getattr(transform, name)) for name in ("mean", "axes", "variance")}
    save_file(arrays, folder / FILE, {"tower": tower_digest, "digest": transform.digest.hex()})
    return folder / FILE


def load(folder: Path, width: int, tower_digest: str) -> Transform | None:
    """The transform of a pair folder; None where there is none, or one of another tower.

    Raises:
        ConfigError: a damaged file, or one that is no orthonormal transform of tokens of this width.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            meta = file.metadata() or {}
            found = Transform(*(file.get_tensor(name) for name in ("mean", "axes", "variance")))
    except (OSError, SafetensorError) as err:
        raise ConfigError(f"'{path}': not a transform ({err}); estimate it again") from None
    if meta.get("tower") != tower_digest:
        return None
    shapes = found.mean.shape, found.axes.shape, found.variance.shape
    if shapes != ((width,), (width, width), (width,)):
        raise ConfigError(f"'{path}': shapes {shapes}; allowed: mean, axes, variance of width {width}")
    if found.digest.hex() != meta.get("digest"):
        raise ConfigError(f"'{path}': its digest is {found.digest.hex()}, not {meta.get('digest')}; damaged")
    with np.errstate(all="ignore"):
        off = np.abs(found.axes.T.astype(np.float64) @ found.axes - np.eye(width)).max()
        if not (off < 1e-4 and np.isfinite(found.mean).all() and (np.diff(found.variance) <= 0).all()):
            raise ConfigError(f"'{path}': the axes are not orthonormal, or not in order of their variance")
    return found
