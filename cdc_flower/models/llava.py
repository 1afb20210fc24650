"""LLaVA 1.5 and its like: a CLIP or SigLIP tower, a projector of two layers, one square a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from cdc_flower.data.features import Grid
from cdc_flower.models.family import Family


class Llava(Family):
    """`LlavaForConditionalGeneration`, whose tower is CLIP's or, with strategy "full", SigLIP's."""

    model_type = "llava"
    model_class = LlavaForConditionalGeneration
    tower = "vision_tower"
    projector = "multi_modal_projector"
    language = "language_model"
    tap = "hidden states of the tower at vision_feature_layer, without the class token"
    checkpoints = "llava-hf/llava-1.5-7b-hf and 13b, bczhou/tiny-llava-v1-hf"
    pictures_first = True
    raster = True
    several = True

    def refusal(self, config: Any) -> str:
        """A tower without a class token cannot drop it."""
        drops = config.vision_feature_select_strategy == "default"
        if drops and not _has_class_token(config):
            kind = config.vision_config.model_type
            return (
                f"tower '{kind}' has no class token to drop; allowed: vision_feature_select_strategy 'full'"
            )
        return ""

    def width(self, config: Any) -> int:
        """Width of the tower, once for each of its layers that are read."""
        layers = config.vision_feature_layer
        return config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))

    def tower_key(self, config: Any) -> str:
        """Which layers are read, and whether the class token stays."""
        return repr((config.vision_feature_layer, config.vision_feature_select_strategy))

    def grid(self, config: Any) -> Grid | None:
        """The tower's patches."""
        return one_square(config)

    @torch.no_grad()
    def encode(
        self, tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]
    ) -> list[tuple[np.ndarray, Grid]]:
        """See `Family.encode`."""
        pixels = processor(images=[im.convert("RGB") for im in images], return_tensors="pt")["pixel_values"]
        grid = one_square(config)
        rows = read(tower, config, pixels).float().cpu().numpy().astype(np.float16)
        return [(tokens, grid) for tokens in rows]


def one_square(config: Any) -> Grid:
    """The grid of one picture as the tower reads it."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    whole = config.vision_feature_select_strategy == "full" and _has_class_token(config)
    return Grid(side * side + whole, side, side)


def read(tower: nn.Module, config: Any, pixels: Tensor) -> Tensor:
    """Tokens (B, n, D) of pictures as the tower reads them."""
    weight = next(tower.parameters())
    states = tower(pixels.to(weight.device, weight.dtype), output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    chosen = torch.cat([states[i] for i in ([layers] if isinstance(layers, int) else layers)], -1)
    return chosen[:, 1:] if config.vision_feature_select_strategy == "default" else chosen


def _has_class_token(config: Any) -> bool:
    return "siglip" not in config.vision_config.model_type
