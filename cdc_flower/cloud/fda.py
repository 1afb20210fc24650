"""FDA: one forward pass from what a device sent lately to an adapter of its own.

A hypernetwork after CDC-MMPG (arXiv 2406.01601), whose equations were not to be had; the form is that of its
authors' DUET (WWW 2023): a summary of what the device sees, then parameters that are linear in it. Samples go
in as a set: features of a clip as it was received or reconstructed, and the ids of the question. No label and
no answer goes in. What is generated is a part of the adapter (`KINDS`); the rest stays that of version 0:

    e_i = mlp(features_i, mean of the words of question i),   s = [mean_i e_i, max_i e_i]
    theta = theta_0 + shared + basis^T z(s)        on the tensors of the kind, `shared` = `basis` = 0 at first

How it is trained is in `cloud.episodes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cdc_flower.config import ConfigError
from cdc_flower.models.adapters import HEAD, Layout, outer

WIDE = 64  # of the hidden layers
WORD = 32  # of a word's vector
SPREAD = 1e-3  # of a feature, below which it says nothing


@dataclass(frozen=True)
class Kind:
    """A part of the adapter that is generated.

    Attributes:
        takes: whether it has a tensor of this name and shape.
        size: numbers of z, which all that is generated is linear in.
    """

    takes: Callable[[str, tuple[int, ...]], bool]
    size: int


KINDS: dict[str, Kind] = {
    "basis": Kind(outer, 32),
    "scales": Kind(lambda name, shape: len(shape) == 1, 32),
    "head": Kind(lambda name, shape: HEAD in name, 64),
}
"""Values of `mmpg.generate`: the outer factors of LoRA and all vectors on a shared basis; scales and biases
alone; the head's layer as a whole, after DUET."""


def places(kind: str, layout: Layout) -> NDArray[np.int64]:
    """Where the generated values (G,) stand in the flat adapter (P,), rising.

    Raises:
        ConfigError: the adapter has no such tensor.
    """
    every = layout.places(KINDS[kind].takes)
    if not len(every):
        able = [k for k, other in KINDS.items() if any(map(other.takes, layout.names, layout.shapes))]
        raise ConfigError(
            f"setting 'mmpg.generate' = '{kind}': this adapter has no such tensor; allowed: {', '.join(able)}"
        )
    return every


def clip_features(
    tokens: NDArray[np.floating], trust: NDArray[np.floating] | None = None
) -> NDArray[np.float32]:
    """What a clip looks like and how it moves: (3 D,) of tokens (F, n, D). Mean and deviation over all
    tokens, and the mean change from a frame to the next; 0 of a picture, which has one frame.

    Args:
        tokens: of all frames.
        trust: (F,) how much each frame counts, and a change as the product of both; None = all alike.
    """
    x = np.asarray(tokens, np.float32)
    if trust is not None:
        each = (trust / trust.sum()).astype(np.float32)
        both = trust[1:] * trust[:-1]
        mean = np.einsum("f,fnd->d", each, x) / x.shape[1]
        spread = np.einsum("f,fnd->d", each, np.square(x - mean)) / x.shape[1]
        moved = np.einsum("f,fnd->d", both / max(both.sum(), 1e-9), np.abs(np.diff(x, axis=0))) / x.shape[1]
        return np.concatenate([mean, np.sqrt(spread), moved]).astype(np.float32)
    moved = np.abs(np.diff(x, axis=0)).mean((0, 1)) if len(x) > 1 else np.zeros(x.shape[-1], np.float32)
    return np.concatenate([x.mean((0, 1)), x.std((0, 1)), moved])


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of a device: m samples.

    Attributes:
        features: (m, f) float32 of `clip_features`; NaN rows where a question came without its clip.
        questions: m lists of ids.
    """

    features: NDArray[np.float32]
    questions: Sequence[Sequence[int]]

    def some(self, rows: Sequence[int]) -> Seen:
        """Of these samples alone."""
        return Seen(self.features[list(rows)], [self.questions[i] for i in rows])


class Adaptor(nn.Module):
    """The hypernetwork.

    Args:
        layout: of the adapter.
        initial: version 0 (P,).
        kind: key of `KINDS`.
        vocab: ids lie below it.
        features: how many a clip has.
        constant: the summary is the same whatever came: one shared adapter, in the same bytes.
        seed: of its first weights.

    Raises:
        ConfigError: the adapter has nothing that this kind generates.
    """

    mean: Tensor
    scale: Tensor
    at: Tensor
    base: Tensor

    def __init__(
        self,
        layout: Layout,
        initial: NDArray[np.float32],
        kind: str,
        vocab: int,
        features: int,
        constant: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        where, size = torch.from_numpy(places(kind, layout)), KINDS[kind].size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.words = nn.Embedding(vocab, WORD)
            self.item = nn.Sequential(nn.Linear(features + 1 + WORD, WIDE), nn.GELU(), nn.Linear(WIDE, WIDE))
            self.pooled = nn.Sequential(
                nn.LayerNorm(2 * WIDE), nn.Linear(2 * WIDE, WIDE), nn.GELU(), nn.Linear(WIDE, size)
            )
        self.shared = nn.Parameter(torch.zeros(len(where)))
        self.basis = nn.Parameter(torch.zeros(size, len(where)))
        self.constant = constant
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("at", where, persistent=False)
        self.register_buffer("base", torch.from_numpy(np.array(initial, np.float32)), persistent=False)

    def standardise(self, features: NDArray[np.float32]) -> None:
        """Learn mean and spread of the features (n, f) that are there."""
        there = torch.from_numpy(features[np.isfinite(features).all(1)])
        if len(there):
            self.mean.copy_(there.mean(0))
            spread = there.std(0, unbiased=False)
            self.scale.copy_(torch.where(spread > SPREAD, 1 / spread.clamp_min(SPREAD), 0.0))

    def summary(self, seen: Seen) -> Tensor:
        """The device as a point (2 WIDE,): order does not matter. Zeros of nothing, or where it is constant.

        Features that are far from all that was trained on count as the farthest of those.
        """
        if self.constant or not len(seen.questions):
            return torch.zeros(2 * WIDE)
        x = torch.from_numpy(np.asarray(seen.features, np.float32))
        there = torch.isfinite(x).all(1, keepdim=True)
        x = torch.where(there, ((x - self.mean) * self.scale).clamp(-8, 8), 0.0)
        asked = [torch.tensor(list(q) or [0]) for q in seen.questions]
        words = nn.functional.embedding_bag(
            torch.cat(asked),
            self.words.weight,
            torch.tensor([0, *np.cumsum([len(q) for q in asked])[:-1].tolist()]),
            mode="mean",
        )
        items = self.item(torch.cat([x, there.float(), words], 1))
        return torch.cat([items.mean(0), items.amax(0)])

    def generated(self, summary: Tensor) -> Tensor:
        """The generated values (G,), of a summary."""
        return self.base[self.at] + self.shared + self.pooled(summary) @ self.basis

    @torch.no_grad()
    def adapter(self, seen: Seen) -> NDArray[np.float32]:
        """The adapter (P,) float32 of a device, in one forward pass."""
        flat = self.base.clone()
        flat[self.at] = self.generated(self.summary(seen))
        return flat.numpy()
