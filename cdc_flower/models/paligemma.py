"""PaliGemma 1 and 2: a SigLIP tower, one linear projection, and a prompt that is read in both directions.

Picture and question are a prefix in which all see all; the answer sees what is before it. Positions begin at
1. The checkpoints have no chat template: the prompt is picture, start token, question and line end, as their
processor writes it. PaliGemma 2 bounds its logits by tanh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PaliGemmaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cdc_flower.data.features import Grid
from cdc_flower.models.family import Family

if TYPE_CHECKING:
    from cdc_flower.models.inputs import Inputs


class PaliGemma(Family):
    """`PaliGemmaForConditionalGeneration`, with Gemma's or Gemma 2's language model."""

    model_type = "paligemma"
    model_class = PaliGemmaForConditionalGeneration
    tower = "vision_tower"
    projector = "multi_modal_projector"
    language = "language_model"
    tap = "last hidden state of the tower"
    checkpoints = "google/paligemma-3b-mix-224, google/paligemma2-3b-mix-224, 10b, 28b, 448, 896"
    raster = True
    several = True
    template = (
        "{% for message in messages %}{% for part in message['content'] if part['type'] == 'image' %}"
        "<image>{% endfor %}{% endfor %}{{ bos_token }}{% for message in messages %}{% for part in "
        "message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endfor %}{{ '\n' }}"
    )

    def width(self, config: Any) -> int:
        """Width of the tower."""
        return config.vision_config.hidden_size

    def tower_key(self, config: Any) -> str:
        """The last layer is read."""
        return ""

    def grid(self, config: Any) -> Grid:
        """The tower's patches."""
        side = config.vision_config.image_size // config.vision_config.patch_size
        return Grid(side * side, side, side)

    @torch.no_grad()
    def encode(
        self, tower: nn.Module, config: Any, processor: Any, images: Sequence[Image.Image]
    ) -> list[tuple[np.ndarray, Grid]]:
        """See `Family.encode`."""
        weight = next(tower.parameters())
        pixels = processor(images=[im.convert("RGB") for im in images], return_tensors="pt")["pixel_values"]
        states = tower(pixel_values=pixels.to(weight.device, weight.dtype)).last_hidden_state
        grid = self.grid(config)
        return [(tokens, grid) for tokens in states.float().cpu().numpy().astype(np.float16)]

    def encoded(self, model: Any, rows: Tensor) -> BaseModelOutputWithPooling:
        """See `Family.encoded`."""
        return BaseModelOutputWithPooling(pooler_output=rows[None])

    def positions(self, ids: np.ndarray, slots: np.ndarray, grid: Grid) -> np.ndarray:
        """Counted from 1."""
        return 1 + np.arange(len(ids))

    def arguments(self, inputs: Inputs) -> dict[str, Tensor]:
        """0 for the prefix, 1 for the answer."""
        place = torch.arange(inputs.ids.shape[1], device=inputs.ids.device)
        return {"token_type_ids": (place >= inputs.length[:, None]).long()}

    def logits(self, model: Any, hidden: Tensor) -> Tensor:
        """Bounded where the configuration says so."""
        found = model.lm_head(hidden)
        bound = getattr(model.config.text_config, "final_logit_softcapping", None)
        return found if bound is None else bound * torch.tanh(found / bound)
