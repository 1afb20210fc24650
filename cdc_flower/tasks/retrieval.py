"""Retrieval: how far up the right clip stands for a caption, and the right caption for a clip.

Recall at k and the median rank, as text-video retrieval has them (MSR-VTT, arXiv 1609.08496 and after). Where
several clips have one caption all of them are right, and the best of them counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

AT = (1, 5, 10)
WAYS = ("text to clip", "clip to text")  # what asks, and what is found


def equal(captions: Sequence[str]) -> np.ndarray:
    """Which clips are right for which caption, (B, B) bool, where caption i is that of clip i."""
    words = np.array(captions, object)
    return words[:, None] == words[None]


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank (M,) from 1 of the best right one for each of M queries; a wrong one that is as near goes
    before it, so that a model that gives everything one vector, or no number, is the worst.

    Args:
        scores: (M, N), how near each is; NaN is farther than any.
        right: (M, N) bool, at least one in each row.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    best = np.where(right, scores, -np.inf).max(1)
    return 1 + ((scores >= best[:, None]) & ~right).sum(1)


def figures(found: np.ndarray) -> dict[str, float]:
    """`R@k` as shares for each k of `AT`, and `median rank`, of ranks (M,)."""
    recall = {f"R@{k}": float((found <= k).mean()) for k in AT}
    return {**recall, "median rank": float(np.median(found))}


def both_ways(clips: np.ndarray, texts: np.ndarray, captions: Sequence[str]) -> dict[str, dict[str, float]]:
    """`figures` of text to clip and of clip to text.

    Args:
        clips, texts: (B, E) of length 1; those of a row belong together.
        captions: B, the texts' words.
    """
    scores, right = texts @ clips.T, equal(captions)
    return dict(zip(WAYS, (figures(ranks(scores, right)), figures(ranks(scores.T, right.T))), strict=True))
