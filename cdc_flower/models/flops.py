"""Floating-point operations of a pass from the model's shapes: 2 per weight and position, plus attention.

What is counted is what linear layers (adapter included) and the two products of attention do on every
position of a batch, padding aside; norms, activations and softmax, a few per cent in small models, are not.
A backward pass is not counted here: whoever trains charges twice the forward pass for full training, once
for LoRA, which skips the gradients of frozen weights (Kaplan et al., arXiv 2001.08361).
"""

from __future__ import annotations

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
    projector, lm, head = parts(model)
    attention = 4 * lm.config.num_hidden_layers * lm.config.hidden_size * context
    return (positions * (2 * _weights(lm) + attention) + 2 * vision_tokens * _weights(projector)
            + 2 * predicted * _weights(head))


def _weights(module: nn.Module) -> int:
    """Weights of the linear layers that run: peft keeps an unused `original_module` beside what it trains."""
    return sum(layer.in_features * layer.out_features for name, layer in module.named_modules()
               if isinstance(layer, nn.Linear) and "original_module" not in name.split("."))
