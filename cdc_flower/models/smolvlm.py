"""SmolVLM and Idefics3: a SigLIP tower, patches shuffled together, one projection; large pictures in tiles.

A picture that is larger than the tower's square is cut into tiles, and the whole of it, made small, comes
last; so the number of tokens is each picture's own. Tokens stand tile by tile, as in the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

from cdc_flower.data.features import Grid
from cdc_flower.models.family import Family

AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"
"""Words of the prompt around a tile, and before the whole picture."""


class SmolVLM(Family):
    """`SmolVLMForConditionalGeneration`. One picture a question, no video."""

    model_type = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    tower = "vision_model"
    projector = "connector.modality_projection"
    language = "text_model"
    tap = "last hidden state of the tower, scale_factor^2 patches shuffled into one row"
    checkpoints = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct, 500M, 2.2B"
    pictures_first = True
    notes = "no video"
    varies = True
    several = True

    def width(self, config: Any) -> int:
        """Width of the tower, for each of the patches that make a token."""
        return config.vision_config.hidden_size * config.scale_factor**2

    def tower_key(self, config: Any) -> str:
        """How many patches make a token."""
        return repr(config.scale_factor)

    def _side(self, config: Any) -> int:
        """Tokens of a side of a tile."""
        return config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor

    def _of_tiles(self, config: Any, rows: int, cols: int) -> Grid:
        side = self._side(config)
        if not rows:
            return Grid(side * side, side, side)
        return Grid((rows * cols + 1) * side * side, rows * side, cols * side)

    def grid(self, config: Any) -> None:
        """Each picture has its own."""
        return None

    def smallest(self, config: Any) -> Grid:
        """One tile."""
        return self._of_tiles(config, 0, 0)

    def fits(self, config: Any, processor: Any, grid: Grid) -> bool:
        """One tile, or as many as the processor can make."""
        side = self._side(config)
        most = -(-processor.size["longest_edge"] // processor.max_image_size["longest_edge"])
        tiles = grid.rows // side, grid.cols // side
        made = tiles[0] * tiles[1] > 1 and max(tiles) <= most
        return grid == self.smallest(config) or (made and grid == self._of_tiles(config, *tiles))

    def layout(self, config: Any, processor: Any, size: tuple[int, int]) -> Grid:
        """The tiles that the processor makes, and the whole picture."""
        _, rows, cols = processor.get_number_of_image_patches(*size)
        return self._of_tiles(config, rows, cols)

    def pixels(self, config: Any) -> int:
        """Half of a tile's: the processor enlarges every picture to the longest side that it takes."""
        return max(1, config.vision_config.patch_size * config.scale_factor // 2)

    @torch.no_grad()
    def encode(
        self, tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]
    ) -> list[tuple[np.ndarray, Grid]]:
        """See `Family.encode`."""
        weight, found = next(tower.parameters()), []
        for image in images:  # alone: together, smaller pictures are padded with tiles of nothing
            made = processor(images=[image.convert("RGB")], return_tensors="pt", return_row_col_info=True)
            tiles = made["pixel_values"][0].to(weight.device, weight.dtype)
            side = config.vision_config.image_size // config.vision_config.patch_size
            seen = torch.ones(len(tiles), side, side, dtype=torch.bool, device=weight.device)
            states = tower(pixel_values=tiles, patch_attention_mask=seen).last_hidden_state
            rows = shuffled(states, config.scale_factor).flatten(0, 1).float().cpu().numpy()
            found.append(
                (rows.astype(np.float16), self._of_tiles(config, made["rows"][0][0], made["cols"][0][0]))
            )
        return found

    def image_words(self, config: Any, grid: Grid, word: Callable[[int], str]) -> str:
        """Tiles row by row with their places, then the whole picture."""
        side, tiles = self._side(config), ""
        tile = word(config.image_token_id) * side * side
        if grid.n > side * side:
            rows = (
                "".join(f"{AROUND}<row_{r}_col_{c}>{tile}" for c in range(1, grid.cols // side + 1)) + "\n"
                for r in range(1, grid.rows // side + 1)
            )
            tiles = "".join(rows) + "\n"
        return f"{tiles}{AROUND}{WHOLE}{tile}{AROUND}"


class Idefics3(SmolVLM):
    """`Idefics3ForConditionalGeneration`."""

    model_type = "idefics3"
    checkpoints = "HuggingFaceM4/Idefics3-8B-Llama3, HuggingFaceTB/SmolVLM-256M-Instruct, 500M, 2.2B"
    model_class = Idefics3ForConditionalGeneration


def shuffled(states: Tensor, factor: int) -> Tensor:
    """factor x factor neighbouring rows (B, P, D) as one: (B, P / factor^2, factor^2 D); without weights."""
    return Idefics3Connector.pixel_shuffle(None, states, factor)  # type: ignore[arg-type]
