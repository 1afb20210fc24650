"""What the question attends to, read layer by layer: no layer's map of attention outlives its layer.

A map is (B, heads, S, S) of one layer. Kept of all layers they would be the largest thing in memory by far;
added up as they are made they cost one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cdc_flower.models.families import parts
from cdc_flower.models.family import bare
from cdc_flower.models.inputs import Inputs


@contextmanager
def shown(model: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """While this is open, `take` is given the map (B, heads, S, S) of each layer of the language model, one
    after the other; the layer then forgets it. Attention is computed eagerly meanwhile: other ways make no
    maps.
    """

    def hook(module: nn.Module, given: Any, out: tuple[Any, ...]) -> tuple[Any, ...]:
        take(out[1])
        return out[0], None, *out[2:]

    language = parts(model)[1]
    configs = [bare(model).config, language.config]
    before = [config._attn_implementation for config in configs]
    hooks = [layer.self_attn.register_forward_hook(hook) for layer in language.layers]
    try:
        for config in configs:
            config._attn_implementation_internal = "eager"  # its own, and no other part's
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation_internal = name
        for one in hooks:
            one.remove()


class Paid:
    """Attention that the question pays to every position: the mean over layers, heads and the question's
    positions, of which the last (the one that writes the answer) counts as much as the mean of all.
    """

    def __init__(self, inputs: Inputs, mask: Tensor) -> None:
        """`mask`: (B, S), positions that are there."""
        self.first = int(inputs.question.min())  # no question begins before
        place = torch.arange(self.first, mask.shape[1], device=mask.device)
        rows = (mask[:, self.first :] & (place >= inputs.question[:, None])).float()
        rows = rows / rows.sum(1, keepdim=True)
        last = nn.functional.one_hot(inputs.length - 1 - self.first, rows.shape[1]).float()
        self.weight = 0.5 * rows + 0.5 * last  # (B, T)
        self.total = torch.zeros(mask.shape, device=mask.device)
        self.layers = 0

    def add(self, layer: Tensor) -> None:
        """One layer's map (B, heads, S, S). A product of matrices would have bits that depend on B."""
        self.total += (self.weight[..., None] * layer.float().mean(1)[:, self.first :]).sum(1)
        self.layers += 1

    @property
    def mean(self) -> Tensor:
        """(B, S) float32."""
        return self.total / self.layers
