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
from dataclasses import dataclass
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
        """At most `GROUPS` ranges of components, equally wide in log variance; none is empty."""
        variance = self.variance.astype(np.float64)
        logs = np.log2(np.maximum(variance, max(variance[0] * 2**-20, 1e-30)))
        level = np.minimum(GROUPS * (logs[0] - logs) / max(logs[0] - logs[-1], 1e-9), GROUPS - 1).astype(int)
        edges = [0, *(np.flatnonzero(np.diff(level)) + 1).tolist(), len(level)]
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
    """The transform of tower outputs.

    Args:
        tokens: (pictures, N, D), of unlabelled source pictures; `World.train_tokens` has this form.
        pictures: at most so many are read, evenly spread.

    Raises:
        ValueError: fewer than D tokens.
    """
    rows = np.unique(np.linspace(0, len(tokens) - 1, min(pictures, len(tokens))).astype(int))
    flat = np.asarray(tokens[rows], np.float64).reshape(-1, tokens.shape[-1])
    if len(flat) < flat.shape[1]:
        raise ValueError(f"{len(flat)} tokens of width {flat.shape[1]}; allowed: at least the width")
    mean = flat.mean(axis=0)
    variance, axes = np.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    falling = np.argsort(-variance, kind="stable")
    return Transform(mean.astype(np.float32), np.ascontiguousarray(axes[:, falling], np.float32),
                     np.maximum(variance[falling], 0).astype(np.float32))


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
