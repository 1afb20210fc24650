"""What goes up: the tokens of a sample, then the samples of a round, until the byte budget is spent.

Selection is a pure function of scores; ties fall to the lower position, so that the same scores give the same
frame everywhere. The budget counts real encoded bytes, not an estimate: columns shared by all samples
compress better the more samples there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cdc_flower.uplink.token_batch import sample_bytes

__all__ = ["sample_bytes", "top", "within_budget"]


def top(scores: NDArray[np.floating], keep: int) -> list[NDArray[np.int64]]:
    """Positions of the `keep` tokens of each sample with the highest scores, rising.

    Args:
        scores: (B, N). NaN ranks last; ties go to the lower position.
        keep: tokens to keep; all N if it is larger.

    Raises:
        ValueError: scores that are not (B, N), a negative `keep`.
    """
    if np.ndim(scores) != 2:
        raise ValueError(f"scores must be (B, N), got shape {np.shape(scores)}")
    if keep < 0:
        raise ValueError(f"keep = {keep}; allowed: 0 and more")
    order = np.argsort(-np.asarray(scores, np.float64), axis=1, kind="stable")  # numpy sorts NaN to the end
    return [np.sort(row[:keep]) for row in order]


def within_budget(
    order: Sequence[int], encoded_size: Callable[[Sequence[int]], int], budget: int
) -> list[int]:
    """The longest prefix of `order` (most uncertain first) whose real size fits: all, or by bisection.

    Args:
        order: sample indices, best first.
        encoded_size: bytes of the frame that holds these samples.
        budget: bytes; 0 = no limit.

    Returns:
        The prefix; empty if not even one sample fits. It always fits itself; where the size is not monotone
        (a longer prefix can compress a byte or two better) a longer one that fits too may be missed.
    """
    if not budget or encoded_size(order) <= budget:
        return list(order)
    low, high = 0, len(order) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if encoded_size(order[:middle]) <= budget:
            low = middle
        else:
            high = middle - 1
    return list(order[:low])
