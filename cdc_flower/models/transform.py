"""The decorrelating transform of vision tokens: PCA of the tower's outputs, provisioned with the models.

Components of a tower's output are correlated; a scalar quantiser with an entropy coder pays for that in every
value (transform coding, e.g. Goyal 2001). The cloud estimates mean and principal axes once, from tower
outputs of unlabelled source pictures, and puts them into the pair folder, from which both ends load them. The
axes are orthonormal, so one step for all components is the best a uniform quantiser can do and an error is as
large in tokens as in components; components are grouped by variance, so that each group has a coding model of
its own. A channel whose deviation is far above that of the others, as towers have some, is divided by a
power of two before: else the step that it needs is too coarse for all others.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_bytes

from cdc_flower.config import ConfigError
from cdc_flower.disk import whole

FILE = "transform.safetensors"  # in a pair folder
BARE = "cdc_flower"  # the folder for it in that of a bare student
WIDEST = 2048  # components of a transform that is estimated without being asked for: 17 MB
DIGEST_BYTES = 8
_BLOCK = 64  # pictures read together
_OUTLIER = 4.0  # times the median deviation, from where on a channel is divided
GROUPS = 8  # of components; 16 save 1 % of a frame more at most, and cost each frame their tables


@dataclass(frozen=True, eq=False)
class Transform:
    """y = ((x - mean) / scale) @ axes, x = (y @ axes.T) * scale + mean.

    Attributes:
        mean: (D,) float32.
        axes: (D, D) float32, orthonormal columns.
        variance: (D,) float32, of each component, falling.
        scale: (D,) float32, powers of two: 1 for all but channels of a far higher deviation; or (1,) for all.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    variance: NDArray[np.float32]
    scale: NDArray[np.float32] = field(default_factory=lambda: np.ones(1, np.float32))

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes of blake2b over the float32 bytes of mean, axes, variance and, where one is not 1,
        scale, little-endian."""
        scaled = (self.scale,) if (self.scale != 1).any() else ()
        arrays = (self.mean, self.axes, self.variance, *scaled)
        parts = (np.ascontiguousarray(a, "<f4").tobytes() for a in arrays)
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

    def balanced(self, tokens: NDArray[np.floating]) -> NDArray[np.floating]:
        """Tokens (M, D) without the mean, outlying channels divided: what components are made of."""
        return (tokens - self.mean) / self.scale

    def forward(self, balanced: NDArray[np.floating]) -> NDArray[np.float64]:
        """Components (M, D) of balanced tokens (M, D)."""
        return balanced.astype(np.float64) @ self.axes.astype(np.float64)

    def inverse(self, components: NDArray[np.floating]) -> NDArray[np.float32]:
        """Tokens (M, D) float32 of components (M, D)."""
        balanced = components.astype(np.float64) @ self.axes.T.astype(np.float64)
        with np.errstate(over="ignore"):
            return (balanced * self.scale + self.mean).astype(np.float32)


def estimate(tokens: Sequence[NDArray[np.floating]], pictures: int = 2000) -> Transform:
    """The transform of tower outputs, read twice in blocks of pictures; memory grows with D * D alone.

    Args:
        tokens: of unlabelled source pictures, (n, D) each; `Features` have this form.
        pictures: at most so many are read, evenly spread.

    Raises:
        ValueError: fewer than D tokens.
    """
    rows = np.unique(np.linspace(0, len(tokens) - 1, min(pictures, len(tokens))).astype(int)).tolist()
    count = sum(len(tokens[i]) for i in rows)
    width = tokens[0].shape[-1] if rows else 0
    if not rows or count < width:
        raise ValueError(f"{count} tokens of width {width}; allowed: at least the width")

    def blocks() -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(rows), _BLOCK):
            some = [np.asarray(tokens[i], np.float64) for i in rows[start : start + _BLOCK]]
            yield np.concatenate(some)

    mean = np.sum([block.sum(axis=0) for block in blocks()], axis=0) / count
    covariance = np.zeros((width, width))
    for block in blocks():
        block -= mean
        covariance += block.T @ block
    covariance /= count
    scale = _balance(np.sqrt(np.diag(covariance)))
    variance, axes = np.linalg.eigh(covariance / np.outer(scale, scale))
    falling = np.argsort(-variance, kind="stable")
    return Transform(
        mean.astype(np.float32),
        np.ascontiguousarray(axes[:, falling], np.float32),
        np.maximum(variance[falling], 0).astype(np.float32),
        scale.astype(np.float32),
    )


def _balance(deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each channel is divided by: 1, or the power of two that is nearest to its share of the median."""
    share = deviation / max(float(np.median(deviation)), 1e-30)
    return np.where(share > _OUTLIER, 2.0 ** np.rint(np.log2(np.clip(share, 1, 2.0**40))), 1.0)


def save(transform: Transform, folder: Path, tower_digest: str) -> Path:
    """Write `transform.safetensors` into a folder, whole or not at all, for the tower it was estimated of."""
    names = ("mean", "axes", "variance", *(("scale",) if (transform.scale != 1).any() else ()))
    arrays = {name: np.ascontiguousarray(getattr(transform, name)) for name in names}
    folder.mkdir(exist_ok=True)
    with whole(folder / FILE) as file:
        file.write(save_bytes(arrays, {"tower": tower_digest, "digest": transform.digest.hex()}))
    return folder / FILE


def load(folder: Path, width: int, tower_digest: str) -> Transform | None:
    """The transform of a folder; None where there is none, or one of another tower.

    Raises:
        ConfigError: a damaged file, or one that is no orthonormal transform of tokens of this width.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    again = "; allowed: delete it, `cdc-flower transform` estimates another"
    wanted = {"mean": [width], "axes": [width, width], "variance": [width], "scale": [width]}
    try:
        with safe_open(path, framework="np") as file:
            meta, names = file.metadata() or {}, file.keys()
            if meta.get("tower") != tower_digest:
                return None
            heads = {n: file.get_slice(n) for n in wanted if n in names or n != "scale"}
            shapes = {n: (h.get_shape(), h.get_dtype()) for n, h in heads.items()}
            if any(shape != (wanted[n], "F32") for n, shape in shapes.items()):  # before anything is read
                raise ConfigError(f"'{path}': {shapes}; allowed: float32 for tokens of width {width}{again}")
            arrays = {n: file.get_tensor(n) for n in heads}
    except (OSError, SafetensorError) as err:
        raise ConfigError(f"'{path}': not a transform ({err}){again}") from None
    found = Transform(**arrays)
    if found.digest.hex() != meta.get("digest"):
        raise ConfigError(
            f"'{path}': its digest is {found.digest.hex()}, not {meta.get('digest')}: damaged{again}"
        )
    with np.errstate(all="ignore"):
        off = np.abs(found.axes.T.astype(np.float64) @ found.axes - np.eye(width)).max()
        falling = (np.diff(found.variance) <= 0).all() and 0 <= found.variance.min() < np.inf
        powers = np.isfinite(found.scale).all() and (np.abs(np.frexp(found.scale)[0]) == 0.5).all()
        right = off < 1e-4 and np.isfinite(found.mean).all() and np.isfinite(found.variance).all()
    if not (right and falling and powers and (found.scale >= 1).all()):
        raise ConfigError(
            f"'{path}': its axes are not orthonormal, or not in order of their variance, or a scale is no "
            f"power of two{again}"
        )
    return found
