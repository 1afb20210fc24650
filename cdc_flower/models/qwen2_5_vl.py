"""Qwen2.5-VL: pictures of any size, four patches a token, positions in three axes.

The tower's last layer, the merger, is the projector: it is left out of the tower, so a token is the four
patches that it merges, and towers of equal weights share tokens under language models of any width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from cdc_flower.data.features import Grid
from cdc_flower.models.family import Family

COST_SIDE = (
    16  # tokens of a side of the picture that costs are reckoned for: 448 pixels in the published models
)


class Merged(nn.Module):
    """Stands in the tower for the merger: the patches (P, D) of a token as one row (P / 4, 4 D)."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, states: Tensor) -> Tensor:
        """See the class."""
        return states.reshape(len(states) // self.patches, -1)


class Qwen25VL(Family):
    """`Qwen2_5_VLForConditionalGeneration`. One picture a question, no video.

    Attributes:
        mergers: names of what in the tower depends on the language model's width.
    """

    model_type = "qwen2_5_vl"
    model_class: ClassVar[Any] = Qwen2_5_VLForConditionalGeneration
    tower = "visual"
    projector = "visual.merger"
    mergers: ClassVar[tuple[str, ...]] = ("merger",)
    language = "language_model"
    tap = "last hidden state of the tower in the picture's order, the patches that are merged in one row"
    checkpoints = "Qwen/Qwen2.5-VL-3B-Instruct, 7B, 32B, 72B"
    pictures_first = True
    notes = "no video"
    varies = True
    several = True

    def width(self, config: Any) -> int:
        """Width of the tower, for each of the patches that make a token."""
        return config.vision_config.hidden_size * config.vision_config.spatial_merge_size**2

    def tower_key(self, config: Any) -> str:
        """What is not in the weights: how patches are merged, and which attend to which."""
        v = config.vision_config
        return repr((v.spatial_merge_size, v.window_size, sorted(v.fullatt_block_indexes)))

    def grid(self, config: Any) -> None:
        """Each picture has its own."""
        return None

    def smallest(self, config: Any) -> Grid:
        """One token."""
        return Grid(1, 1, 1)

    def pixels(self, config: Any) -> int:
        """The picture as it is read."""
        return config.vision_config.patch_size * config.vision_config.spatial_merge_size

    def fits(self, config: Any, processor: Any, grid: Grid) -> bool:
        """As many tokens as the processor's limits of pixels allow."""
        tokens, area = grid.rows * grid.cols, self.pixels(config) ** 2
        least, most = processor.size["shortest_edge"], processor.size["longest_edge"]
        return grid.n == tokens > 0 and least <= tokens * area <= max(most, area)

    def layout(self, config: Any, processor: Any, size: tuple[int, int]) -> Grid:
        """The size that the processor gives the picture, in tokens."""
        side = self.pixels(config)
        limits = processor.size["shortest_edge"], processor.size["longest_edge"]
        rows, cols = (pixels // side for pixels in smart_resize(*size, side, *limits))
        return Grid(rows * cols, rows, cols)

    @torch.no_grad()
    def encode(
        self, tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]
    ) -> list[tuple[np.ndarray, Grid]]:
        """See `Family.encode`."""
        weight, found = next(tower.parameters()), []
        merge = config.vision_config.spatial_merge_size
        for image in images:  # alone: then its bits do not depend on its neighbours
            made = processor(images=[image.convert("RGB")], return_tensors="pt")
            shape = made["image_grid_thw"].to(weight.device)
            rows = self.tokens(tower(made["pixel_values"].to(weight.device, weight.dtype), grid_thw=shape))
            _, height, width = (shape[0] // torch.tensor([1, merge, merge], device=shape.device)).tolist()
            found.append((rows.float().cpu().numpy().astype(np.float16), Grid(len(rows), height, width)))
        return found

    def tokens(self, out: Any) -> Tensor:
        """Tokens (n, D) of the tower's output."""
        return out.pooler_output

    def take_tower(self, model: Any) -> nn.Module:
        """The merger stays in the model."""
        tower, model.model.visual = model.model.visual, nn.Module()
        for name in self.mergers:
            merger, merged = getattr(tower, name), Merged(tower.config.spatial_merge_size**2)
            stand_in = nn.ModuleList([merged] * len(merger)) if isinstance(merger, nn.ModuleList) else merged
            setattr(model.model.visual, name, merger)
            setattr(tower, name, stand_in)
        return tower

    def give_tower(self, model: Any, tower: nn.Module) -> None:
        """A tower of the same layers with the model's own merger: a whole one, for its class."""
        whole = copy.copy(tower)
        whole._modules = {**tower._modules, **model.model.visual._modules}
        model.model.visual = whole

    def project(self, model: Any, tokens: Tensor) -> Tensor:
        """See `Family.project`."""
        merger = model.model.get_submodule(self.projector)
        return merger(tokens.reshape(-1, tokens.shape[1] // model.config.vision_config.spatial_merge_size**2))

    def positions(self, ids: np.ndarray, slots: np.ndarray, grid: Grid) -> np.ndarray:
        """Time, row and column; what follows a picture goes on after the longer side of it.

        Words stand between pictures, so each is an unbroken run of `slots`.
        """
        frames = np.split(slots, np.flatnonzero(np.diff(slots) > 1) + 1)
        one = grid.of_frame(len(frames))
        rows, cols = np.divmod(np.arange(one.n), one.cols)
        picture = np.stack([np.zeros_like(rows), rows, cols], 1)
        places = np.repeat(np.arange(len(ids))[:, None], 3, 1)
        for at in frames:
            places[at] = places[at[0]] + picture
            places[at[-1] + 1 :] += max(one.rows, one.cols) - one.n
        return places

    def cost_config(self, config: Any) -> dict[str, Any]:
        """See `Family.cost_config`; the picture has `COST_SIDE` tokens a side."""
        found = config.to_dict()
        found["vision_config"]["image_size"] = COST_SIDE * self.pixels(config)
        found["vision_config"]["num_hidden_layers"] = config.vision_config.depth
        return found
