"""Floating-point operations of a pass, from the model's own shapes: 2 per weight and position, plus attention.

Backward is counted as twice forward when weights and activations need gradients (Kaplan et al., arXiv 2001.08361), which holds for full
training; LoRA training skips the frozen weights' gradients and is counted as one forward's worth less.
"""

from __future__ import annotations

from torch import nn

from cdc_flower.models.vlm import parts


def forward(model: nn.Module, positions: int, vision_tokens: int = 0, context: int = 0) -> int:
    """FLOPs of one forward pass over `positions` language-model positions in all.

    Args:
        positions: sum of sequence lengths of a batch.
        vision_tokens: how many of them went through the projector.
        context: mean sequence length, for the attention products.
    """
    projector, lm, head = parts(model)
    config = lm.config
    linear = sum(_size(m) for n, m in lm.named_modules() if isinstance(m, nn.Linear))
    project = sum(_size(m) for m in projector.modules() if isinstance(m, nn.Linear))
    attention = 4 * config.num_hidden_layers * config.hidden_size * context  # type: ignore[operator]
    return int(positions * (2 * linear + attention) + 2 * vision_tokens * project)


def _size(layer: nn.Linear) -> int:
    return layer.in_features * layer.out_features
