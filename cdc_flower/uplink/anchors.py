"""Anchor frames: which few frames of a clip go up, all tokens of each (after CDC-MMPG, arXiv 2406.01601).

A clip is one picture of F frames whose tokens stand one frame after another, so anchor frames are nothing but
kept tokens: position // n says the frame, position % n the place in it. The rules are deterministic but for
`random`, and ties fall to the earlier frame: the same tokens give the same frames everywhere. The paper's own
rule is not known; what each rule is worth is measured by `cdc-flower probe anchors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.floating]
"""Of a clip: (F, n, D)."""


@dataclass(frozen=True)
class Anchors:
    """A rule that picks frames, and what it costs a device.

    Attributes:
        pick: (tokens (F, n, D), k, rng) -> k different frames, in any order.
        flop: (F, n, D, k) -> floating-point operations of it.
        reads: whether it needs the tokens of all frames; else the device's tower may read k frames alone.
    """

    pick: Callable[[Tokens, int, np.random.Generator], NDArray[np.int64]]
    flop: Callable[[int, int, int, int], int]
    reads: bool


def uniform(tokens: Tokens, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The middle frame of each of k equal parts."""
    return ((2 * np.arange(k) + 1) * len(tokens)) // (2 * k)


def motion(tokens: Tokens, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The frames that differ most from the one before; the first is compared with the second."""
    if len(tokens) == 1:
        return np.zeros(1, np.int64)
    flat = _flat(tokens)
    change = np.square(np.diff(flat, axis=0)).sum(axis=1)
    return np.argsort(-np.concatenate((change[:1], change)), kind="stable")[:k]


def farthest(tokens: Tokens, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The frame nearest to the mean of all, then again and again the one farthest from those picked."""
    flat = _flat(tokens)
    picked = [int(np.argmin(np.square(flat - flat.mean(axis=0)).sum(axis=1)))]
    apart = np.square(flat - flat[picked[0]]).sum(axis=1)
    while len(picked) < k:
        apart[picked] = -1.0  # frames may be equal, and none goes up twice
        picked.append(int(np.argmax(apart)))
        apart = np.minimum(apart, np.square(flat - flat[picked[-1]]).sum(axis=1))
    return np.array(picked, np.int64)


def random(tokens: Tokens, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Control: chance."""
    return rng.permutation(len(tokens))[:k]


def _flat(tokens: Tokens) -> NDArray[np.float64]:
    return np.asarray(tokens, np.float64).reshape(len(tokens), -1)


ANCHORS: dict[str, Anchors] = {
    "uniform": Anchors(uniform, lambda frames, n, width, k: 0, reads=False),
    "motion": Anchors(motion, lambda frames, n, width, k: 3 * (frames - 1) * n * width, reads=True),
    "farthest": Anchors(farthest, lambda frames, n, width, k: 3 * (k + 1) * frames * n * width, reads=True),
    "random": Anchors(random, lambda frames, n, width, k: 0, reads=False),
}
"""Name -> rule."""


def choose(kind: str, tokens: Tokens, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The anchor frames of a clip: (k,) rising; all F where k is larger.

    Args:
        kind: a key of `ANCHORS`.
        tokens: (F, n, D), finite.
        k: how many, at least 1.
        rng: of a rule that draws.

    Raises:
        ValueError: names what is wrong and what is allowed.
    """
    if kind not in ANCHORS:
        raise ValueError(f"anchors '{kind}'; allowed: {', '.join(ANCHORS)}")
    if np.ndim(tokens) != 3 or not len(tokens):
        raise ValueError(f"tokens {np.shape(tokens)}; allowed: (F, n, D) with at least one frame")
    if k < 1:
        raise ValueError(f"{k} anchor frames; allowed: at least 1")
    return np.sort(ANCHORS[kind].pick(tokens, min(k, len(tokens)), rng)).astype(np.int64)


def positions(frames: Sequence[int] | NDArray[np.integer], n: int) -> NDArray[np.uint16]:
    """Positions of all tokens of rising frames of n tokens each, as a TOKEN_BATCH frame has them.

    Raises:
        ValueError: frames that do not rise, or a position that is no uint16.
    """
    at = np.asarray(frames, np.int64)
    if (np.diff(at, prepend=-1) <= 0).any() or (len(at) and (at[-1] + 1) * n > 2**16):
        raise ValueError(f"frames {at.tolist()} of {n} tokens; allowed: rising, positions up to {2**16 - 1}")
    return (at[:, None] * n + np.arange(n)).ravel().astype(np.uint16)
