"""InternVL 3 and its like: a tower with a class token, patches shuffled together, large pictures in tiles.

A picture is stretched over the arrangement of tiles that is nearest to its shape; where these are several,
the whole of it, made small, comes last. Tokens stand tile by tile, without a word between tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.internvl.modeling_internvl import InternVLModel

from cdc_flower.data.features import Grid
from cdc_flower.models.family import Family

BEGIN, END = "<img>", "</img>"
"""Words of the prompt around a picture."""


class InternVL(Family):
    """`InternVLForConditionalGeneration`. One picture a question, no video."""

    model_type = "internvl"
    model_class = InternVLForConditionalGeneration
    tower = "vision_tower"
    projector = "multi_modal_projector"
    language = "language_model"
    tap = "hidden states of the tower at vision_feature_layer, neighbouring patches shuffled into one row"
    checkpoints = "OpenGVLab/InternVL3-1B-hf, 2B, 8B, 14B, 38B, 78B"
    pictures_first = True
    notes = "no video"
    varies = True
    several = True

    def refusal(self, config: Any) -> str:
        """One layer alone is read."""
        layer = config.vision_feature_layer
        return "" if isinstance(layer, int) else f"vision_feature_layer {layer}; allowed: one layer"

    def width(self, config: Any) -> int:
        """Width of the tower, for each of the patches that make a token."""
        return config.vision_config.hidden_size * round(1 / config.downsample_ratio) ** 2

    def tower_key(self, config: Any) -> str:
        """Which layer is read, whether the class token stays, how many patches make a token."""
        chosen = config.vision_feature_layer, config.vision_feature_select_strategy
        return repr((*chosen, config.downsample_ratio))

    def _side(self, config: Any) -> int:
        """Tokens of a side of a tile."""
        vision = config.vision_config
        return round(vision.image_size[0] // vision.patch_size[0] * config.downsample_ratio)

    def _of_tiles(self, config: Any, rows: int, cols: int) -> Grid:
        side, tiles = self._side(config), rows * cols
        return Grid((tiles + (tiles > 1)) * side * side, rows * side, cols * side)

    def grid(self, config: Any) -> None:
        """Each picture has its own."""
        return None

    def smallest(self, config: Any) -> Grid:
        """One tile."""
        return self._of_tiles(config, 1, 1)

    def fits(self, config: Any, processor: Any, grid: Grid) -> bool:
        """As many tiles as the processor can make."""
        tiles = grid.rows // self._side(config), grid.cols // self._side(config)
        made = processor.min_patches <= tiles[0] * tiles[1] <= processor.max_patches
        return made and grid == self._of_tiles(config, *tiles)

    def layout(self, config: Any, processor: Any, size: tuple[int, int]) -> Grid:
        """The tiles that the processor makes."""
        tile = processor.size["height"], processor.size["width"]
        cols, rows = get_optimal_tiled_canvas(size, tile, processor.min_patches, processor.max_patches)
        return self._of_tiles(config, rows, cols)

    def pixels(self, config: Any) -> int:
        """Tiles as they are read."""
        return round(config.vision_config.patch_size[0] / config.downsample_ratio)

    @torch.no_grad()
    def encode(
        self, tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]
    ) -> list[tuple[np.ndarray, Grid]]:
        """See `Family.encode`."""
        weight, found = next(tower.parameters()), []
        layer = config.vision_feature_layer
        for image in images:  # alone: then its bits do not depend on its neighbours
            made = processor(images=[image.convert("RGB")], return_tensors="pt", crop_to_patches=True)
            pixels = made["pixel_values"].to(weight.device, weight.dtype)
            out = tower(pixel_values=pixels, output_hidden_states=layer != -1)
            states = out.last_hidden_state if layer == -1 else out.hidden_states[layer]
            if config.vision_feature_select_strategy == "default":
                states = states[:, 1:]
            rows = shuffled(states, config.downsample_ratio).flatten(0, 1).float().cpu().numpy()
            grid = self.layout(config, processor, (image.height, image.width))
            found.append((rows.astype(np.float16), grid))
        return found

    def encoded(self, model: Any, rows: Tensor) -> BaseModelOutputWithPooling:
        """See `Family.encoded`."""
        return BaseModelOutputWithPooling(pooler_output=rows[None])

    def image_words(self, config: Any, grid: Grid, word: Callable[[int], str]) -> str:
        """Between a beginning and an end."""
        return f"{BEGIN}{word(config.image_token_id) * grid.n}{END}"

    def cost_config(self, config: Any) -> dict[str, Any]:
        """See `Family.cost_config`: of one tile."""
        found = config.to_dict()
        for size in ("image_size", "patch_size"):
            found["vision_config"][size] = getattr(config.vision_config, size)[0]
        return found


def shuffled(states: Tensor, ratio: float) -> Tensor:
    """Neighbouring rows (B, P, D) as one: (B, P ratio^2, D / ratio^2); without weights."""
    side = round(states.shape[1] ** 0.5)
    square = states.unflatten(1, (side, side))
    return InternVLModel.pixel_shuffle(None, square, ratio).flatten(1, 2)  # type: ignore[arg-type]
