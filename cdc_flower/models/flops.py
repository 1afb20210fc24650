"""Floating-point operations of a pass from the model's shapes: 2 per weight and position, plus attention.

What is counted is what linear layers (adapter included) and the two products of attention do on every
position of a batch, padding aside; norms, activations and softmax, a few per cent in small models, are not.
A backward pass is not counted here: whoever trains charges twice the forward pass for full training, once
for LoRA, which skips the gradients of frozen weights (Kaplan et al., arXiv 2001.08361).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from cdc_flower.models.vlm import parts


def forward(
    model: nn.Module, positions: int, vision_tokens: int = 0, context: int = 0, predicted: int = 0
) -> int:
    """FLOPs of one forward pass over `positions` language-model positions in all.

    Args:
        model: a LLaVA model, plain or wrapped by peft, compressed or not.
        positions: sum of the sequence lengths of a batch.
        vision_tokens: how many of them went through the projector.
        context: mean sequence length, for the products of attention (not halved for causality:
            eager attention computes both halves).
        predicted: how many of them went through `lm_head`, which reads answer positions only.
    """
    return shape(model).forward(positions, vision_tokens, context, predicted)


@dataclass(frozen=True)
class Shape:
    """What FLOPs depend on: weights of each part's linear layers, and attention per position and context."""

    lm: int
    projector: int
    head: int
    attention: int

    def forward(self, positions: int, vision_tokens: int = 0, context: int = 0, predicted: int = 0) -> int:
        """See `forward`."""
        return (
            positions * (2 * self.lm + self.attention * context)
            + 2 * vision_tokens * self.projector
            + 2 * predicted * self.head
        )


def shape(model: nn.Module) -> Shape:
    """The shape of a model; counting its layers takes milliseconds, so who asks often keeps it."""
    projector, lm, head = parts(model)
    attention = 4 * lm.config.num_hidden_layers * lm.config.hidden_size
    return Shape(_weights(lm), _weights(projector), _weights(head), attention)


def _weights(module: nn.Module) -> int:
    """Weights of the linear layers that run: peft keeps an unused `original_module` beside what it trains."""
    return sum(
        layer.in_features * layer.out_features
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and "original_module" not in name.split(".")
    )
