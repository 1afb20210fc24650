"""The AnchorFrame Distribution Reasoner: tokens of all frames of a clip from those of a few (after CDC-MMPG).

A device sends all tokens of K of the F frames of a clip (`uplink.anchors`). Here the cloud makes the tokens
of all F: by holding the nearest anchor frame, by a line between two neighbours, or by a `Reasoner`, a small
transformer that starts as that line and learns what to add to it, with a variance of each value. Controls are
the mean of the anchors in every frame, and none: the anchors alone, as a shorter clip. The paper's equations
were not to be had; this is after its idea, and what it is worth is measured (`cdc-flower probe anchors`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

LEARNED = "learned"
HIDDEN, BLOCKS, HEADS = 64, 2, 4


def anchor_frames(positions: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    """The anchor frames (K,), rising, of the kept positions of a clip of n tokens a frame.

    Raises:
        ValueError: positions that are not all tokens of at least one frame, or not in order.
    """
    at = np.asarray(positions, np.int64)
    frames = at[::n] // n
    whole = (frames[:, None] * n + np.arange(n)).ravel()
    if not len(at) or not np.array_equal(at, whole) or (np.diff(frames) <= 0).any():
        raise ValueError(f"{len(at)} tokens that are not whole frames of {n} tokens")
    return frames


def _neighbours(at: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places (B, F) in `at` (B, K) of the anchors before and behind each frame, and how far (B, F) it is from
    the first to the second, 0..1; beyond the outermost anchors both are that one."""
    time = torch.arange(frames).expand(len(at), frames).contiguous()
    behind = torch.searchsorted(at, time).clamp(max=at.shape[1] - 1)
    before = (torch.searchsorted(at, time, right=True) - 1).clamp(min=0)
    behind = torch.maximum(behind, before)
    start, end = at.gather(1, before), at.gather(1, behind)
    share = (time - start).clamp(min=0) / (end - start).clamp(min=1)
    return before, behind, share.clamp(max=1).float()


def _take(tokens: Tensor, places: Tensor) -> Tensor:
    """(B, K, n, D), (B, F) -> (B, F, n, D)."""
    return tokens[torch.arange(len(tokens))[:, None], places]


def hold(tokens: Tensor, at: Tensor, frames: int) -> Tensor:
    """In each frame the nearest anchor; of two the earlier."""
    before, behind, share = _neighbours(at, frames)
    return _take(tokens, torch.where(share > 0.5, behind, before))


def linear(tokens: Tensor, at: Tensor, frames: int) -> Tensor:
    """On the line between the anchors around a frame; beyond the outermost ones as `hold`."""
    before, behind, share = _neighbours(at, frames)
    return torch.lerp(_take(tokens, before), _take(tokens, behind), share[..., None, None])


def mean(tokens: Tensor, at: Tensor, frames: int) -> Tensor:
    """Control: in every frame the mean of the anchors."""
    return tokens.mean(1, keepdim=True).expand(-1, frames, -1, -1)


def none(tokens: Tensor, at: Tensor, frames: int) -> Tensor:
    """Control: the anchors alone, (B, K, n, D)."""
    return tokens


RECONSTRUCT: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "hold": hold,
    "linear": linear,
    "mean": mean,
    "none": none,
}
"""Name -> what makes all frames of the anchors without having learned anything."""


class Reasoner(nn.Module):
    """Tokens of all frames, each value with a variance, from those of K anchor frames.

    Every token of the F x n has a state, made of the two anchors around its frame at its place. In turns the
    states of one frame and those of one place attend to one another. What comes out is added to the line
    between the anchors, and is zero before anything was learned.

    Attributes:
        centre, spread: (D,) of tokens, which values are brought to.
        stretch: what deviations are multiplied by, so that they cover what they say.
    """

    centre: Tensor
    spread: Tensor
    stretch: Tensor

    def __init__(self, frames: int, places: int, width: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.frames, self.places = frames, places
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("stretch", torch.ones(()))
        self.begin = nn.Linear(2 * width + 3, hidden)
        self.when = nn.Parameter(0.1 * torch.randn(frames, 1, hidden))
        self.where = nn.Parameter(0.1 * torch.randn(places, hidden))
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(hidden)
        self.end = nn.Linear(hidden, 2 * width)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)

    def forward(self, tokens: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, F, n, D) of all frames.

        Args:
            tokens: (B, K, n, D) float32, of the anchors as they came.
            at: (B, K) int64, rising: which frames they are.
        """
        standard = (tokens - self.centre) / self.spread
        before, behind, share = _neighbours(at, self.frames)
        left, right = _take(standard, before), _take(standard, behind)
        line = torch.lerp(left, right, share[..., None, None])
        change, log_variance = self.added(line, right - left, self._apart(at, before, behind, share))
        found = (line + change) * self.spread + self.centre
        return found, log_variance + 2 * (self.spread * self.stretch).log()

    def added(self, line: Tensor, slope: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the line (B, F, n, D), and its log variance, both of standard values."""
        given = torch.cat([line, slope, apart[:, :, None].expand(-1, -1, self.places, -1)], -1)
        state = self.begin(given) + self.when + self.where
        for block in self.blocks:
            state = block(state)
        change, log_variance = self.end(self.norm(state)).chunk(2, -1)
        return change, log_variance.clamp(-12, 12)

    def _apart(self, at: Tensor, before: Tensor, behind: Tensor, share: Tensor) -> Tensor:
        """(B, F, 3): frames to the anchors before and behind, in clips, and the share of the way."""
        time = torch.arange(self.frames)
        ends = [(time - at.gather(1, places)) / self.frames for places in (before, behind)]
        return torch.stack([*ends, share], -1)


class _Block(nn.Module):
    """Attention within a frame, attention within a place, and a layer for each token."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.space, self.time = _Attention(hidden), _Attention(hidden)
        self.each = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, n, hidden) -> the same."""
        x = x + self.space(x)
        x = x + self.time(x.transpose(1, 2)).transpose(1, 2)
        return x + self.each(x)


class _Attention(nn.Module):
    """Among the last dimension but one."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.asked = nn.Linear(hidden, 3 * hidden)
        self.told = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(..., N, hidden) -> the same."""
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(-2, -3)
            for part in self.asked(self.norm(x)).chunk(3, -1)
        )
        return self.told(F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2))


@torch.no_grad()
def trust(reasoner: Reasoner, log_variance: Tensor) -> Tensor:
    """How far each frame is known, (B, F) in 0..1, of log variances (B, F, n, D): 1 where its values are
    certain, a half where they vary as much as those of all clips do.
    """
    unsure = (log_variance.exp() / reasoner.spread**2).mean((2, 3))
    return 1 / (1 + unsure)


def reconstruct(
    kind: str, tokens: Tensor, at: Tensor, frames: int, reasoner: Reasoner | None = None
) -> Tensor:
    """Tokens (B, F, n, D) of all frames; of `none` the anchors, (B, K, n, D).

    Args:
        kind: a key of `RECONSTRUCT`, or "learned".
        tokens: (B, K, n, D) float32, of the anchors as they came.
        at: (B, K) int64, rising within 0..F - 1.
        frames: F.
        reasoner: for "learned".

    Raises:
        ValueError: names what is wrong and what is allowed.
    """
    if kind not in (*RECONSTRUCT, LEARNED):
        raise ValueError(f"reconstruction '{kind}'; allowed: {', '.join((*RECONSTRUCT, LEARNED))}")
    if tokens.ndim != 4 or at.shape != tokens.shape[:2] or not at.shape[1]:
        shapes = f"tokens {tuple(tokens.shape)}, frames {tuple(at.shape)}"
        raise ValueError(f"{shapes}; allowed: (B, K, n, D) and (B, K) with at least one anchor")
    if len(at) and (at.min() < 0 or at.max() >= frames or (at.diff(dim=1) <= 0).any()):
        raise ValueError(f"anchor frames; allowed: rising within 0..{frames - 1}")
    if kind != LEARNED:
        return RECONSTRUCT[kind](tokens, at, frames)
    if reasoner is None or (frames, tokens.shape[2]) != (reasoner.frames, reasoner.places):
        made = "none" if reasoner is None else f"one of {reasoner.frames} frames of {reasoner.places} tokens"
        raise ValueError(f"reasoner: {made}; allowed: one of {frames} frames of {tokens.shape[2]} tokens")
    with torch.no_grad():
        return reasoner(tokens, at)[0]
