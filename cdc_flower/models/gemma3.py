"""Gemma 3: a SigLIP tower whose patches are averaged in squares; tokens of a picture see each other.

In the language model a picture's tokens attend to one another in both directions, which the class does by the
type of every id. Its local layers see a window of `sliding_window` ids. Absent tokens bring the others nearer
together and padding pushes them apart, so a kept subset is the masked complete sequence, and a batch its
samples one by one, while the padded sequence with its answer fits the window (1,024 ids in the published
models, where a picture has 256).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Gemma3ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cdc_flower.data.features import Grid
from cdc_flower.models.family import Family

if TYPE_CHECKING:
    from cdc_flower.models.inputs import Inputs


class Gemma3(Family):
    """`Gemma3ForConditionalGeneration`; pictures are not panned and scanned."""

    model_type = "gemma3"
    model_class = Gemma3ForConditionalGeneration
    tower = "vision_tower"
    projector = "multi_modal_projector"
    language = "language_model"
    tap = "last hidden state of the tower, averaged over squares of patches"
    checkpoints = "google/gemma-3-4b-it, 12b, 27b"
    notes = "no pan and scan"
    several = True

    def width(self, config: Any) -> int:
        """Width of the tower."""
        return config.vision_config.hidden_size

    def tower_key(self, config: Any) -> str:
        """How many tokens the patches make."""
        return repr(config.mm_tokens_per_image)

    def grid(self, config: Any) -> Grid:
        """One square."""
        side = int(config.mm_tokens_per_image**0.5)
        return Grid(side * side, side, side)

    def pixels(self, config: Any) -> int:
        """The whole square is sent."""
        return config.vision_config.image_size // self.grid(config).rows

    @torch.no_grad()
    def encode(
        self, tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]
    ) -> list[tuple[np.ndarray, Grid]]:
        """See `Family.encode`."""
        rgb, weight = [im.convert("RGB") for im in images], next(tower.parameters())
        pixels = processor(images=rgb, return_tensors="pt", do_pan_and_scan=False)["pixel_values"]
        states = tower(pixel_values=pixels.to(weight.device, weight.dtype)).last_hidden_state
        patches = config.vision_config.image_size // config.vision_config.patch_size
        square = states.transpose(1, 2).unflatten(2, (patches, patches))
        grid = self.grid(config)
        rows = F.avg_pool2d(square, patches // grid.rows).flatten(2).transpose(1, 2)
        return [(tokens, grid) for tokens in rows.float().cpu().numpy().astype(np.float16)]

    def project(self, model: Any, tokens: Tensor) -> Tensor:
        """The projector without its averages, which tokens have behind them."""
        projector = model.model.get_submodule(self.projector)
        return projector.mm_soft_emb_norm(tokens) @ projector.mm_input_projection_weight

    def encoded(self, model: Any, rows: Tensor) -> BaseModelOutputWithPooling:
        """See `Family.encoded`."""
        return BaseModelOutputWithPooling(pooler_output=rows[None])

    def mark(self, config: Any) -> int:
        """The id of the beginning of a picture."""
        return config.boi_token_index

    def image_words(self, config: Any, grid: Grid, word: Callable[[int], str]) -> str:
        """Between its beginning and its end, on lines of its own."""
        begin, end = word(config.boi_token_index), word(config.eoi_token_index)
        return f"\n\n{begin}{word(config.image_token_id) * grid.n}{end}\n\n"

    def arguments(self, inputs: Inputs) -> dict[str, Tensor]:
        """1 for ids of the picture, 0 for others."""
        return {"token_type_ids": inputs.pictured.long()}
