"""LLaVA-OneVision: the whole picture, made small, then tiles without their borders, with a line end a row.

The line end is a learned row of the language model's width. It is no token: it stands in the prompt after
each row of the tiles and is never absent. A picture whose tiles would be interpolated after the projector
(more than `anyres_max` of them and a fifth) is made smaller before, until they are not: its pixels are
averaged and not its projected tokens, and answers are those of the class for the smaller picture.
Of several pictures in a prompt the class cuts none into tiles: clips are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.modeling_llava_onevision import (
    get_anyres_image_grid_shape,
    unpad_image,
)

from cdc_flower.data.features import Grid
from cdc_flower.models.llava import Llava, one_square, read

MOST = 1.1  # above this ratio of sides the class interpolates
SMALLER = 0.95


class LlavaOnevision(Llava):
    """`LlavaOnevisionForConditionalGeneration`. One picture a question, no video.

    In a `Grid` rows and cols are those of the tiles; the whole picture comes before them.
    """

    model_type = "llava_onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    checkpoints = "llava-hf/llava-onevision-qwen2-0.5b-ov-hf, 7b, 72b"
    notes = "no video; a picture of very many tiles is made smaller"
    varies = True
    raster = False
    several = False

    def refusal(self, config: Any) -> str:
        """Some pictures must have few tiles."""
        least = min(h * w for h, w in config.image_grid_pinpoints) / config.vision_config.image_size**2
        if least > self._tiles(config):
            return f"image_grid_pinpoints of {least:g} tiles at least; allowed: up to {self._tiles(config)}"
        return super().refusal(config)

    def _tiles(self, config: Any) -> int:
        return int(config.vision_aspect_ratio.removeprefix("anyres_max_"))

    def grid(self, config: Any) -> None:
        """Each picture has its own."""
        return None

    def smallest(self, config: Any) -> Grid:
        """One tile."""
        one = one_square(config)
        return one._replace(n=2 * one.n)

    def _of_rows(self, config: Any, rows: int, cols: int) -> Grid:
        return Grid(one_square(config).n + rows * cols, rows, cols)

    def _whole(self, config: Any, rows: int, cols: int) -> bool:
        """Whether the class takes so many tokens of tiles as they are."""
        return (rows * cols / (self._tiles(config) * one_square(config).n)) ** 0.5 <= MOST

    def fits(self, config: Any, processor: Any, grid: Grid) -> bool:
        """Tiles of one of the sizes that there are, without a border on two sides."""
        _, rows, cols = grid
        side, pixels = one_square(config).rows, config.vision_config.image_size
        sizes = [(h // pixels * side, w // pixels * side) for h, w in config.image_grid_pinpoints]
        left = [(h - rows, w - cols) for h, w in sizes if 0 < rows <= h and 0 < cols <= w]
        cut = any(0 in borders and sum(borders) % 2 == 0 for borders in left)
        return cut and self._whole(config, rows, cols) and grid == self._of_rows(config, rows, cols)

    def _unpadded(self, config: Any, size: tuple[int, int], tiles: Tensor | None = None) -> Tensor:
        """Tiles (T, P, D) of a picture as one square without borders: (D, rows, cols)."""
        down, across = get_anyres_image_grid_shape(
            size, config.image_grid_pinpoints, config.vision_config.image_size
        )
        side = one_square(config).rows
        if tiles is None:
            return unpad_image(torch.empty(0, down * side, across * side), size)
        square = tiles.view(down, across, side, side, -1).permute(4, 0, 2, 1, 3)
        return unpad_image(square.flatten(1, 2).flatten(2, 3), size)

    def _fitted(self, config: Any, size: tuple[int, int]) -> tuple[int, int]:
        """The size that a picture of (height, width) is read in."""
        while not self._whole(config, *self._unpadded(config, size).shape[1:]):
            size = max(1, int(SMALLER * size[0])), max(1, int(SMALLER * size[1]))
        return size

    def layout(self, config: Any, processor: Any, size: tuple[int, int]) -> Grid:
        """The tiles that the processor makes, without borders."""
        rows, cols = self._unpadded(config, self._fitted(config, size)).shape[1:]
        return self._of_rows(config, rows, cols)

    @torch.no_grad()
    def encode(
        self, tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]
    ) -> list[tuple[np.ndarray, Grid]]:
        """See `Family.encode`."""
        found = []
        for image in images:  # alone: then its bits do not depend on its neighbours
            size = self._fitted(config, (image.height, image.width))
            if size != (image.height, image.width):
                image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            pixels = processor(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"][0]
            states = read(tower, config, pixels)
            square = self._unpadded(config, size, states[1:])
            rows = torch.cat([states[0], square.flatten(1).T]).float().cpu().numpy()
            found.append((rows.astype(np.float16), self._of_rows(config, *square.shape[1:])))
        return found

    def image_words(self, config: Any, grid: Grid, word: Callable[[int], str]) -> str:
        """A word for each token and for each line end."""
        return word(config.image_token_id) * (grid.n + grid.rows)

    def slots(self, slots: np.ndarray, grid: Grid) -> np.ndarray:
        """All but line ends."""
        whole = grid.n - grid.rows * grid.cols
        lines = slots[whole:].reshape(grid.rows, grid.cols + 1)
        return np.concatenate([slots[:whole], lines[:, :-1].ravel()])

    def filler(self, model: Any) -> Tensor:
        """The line end."""
        return model.model.image_newline
