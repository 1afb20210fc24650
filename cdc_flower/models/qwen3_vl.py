"""Qwen3-VL: as Qwen2.5-VL, and middle layers of the tower are read by first layers of the language model.

A token is its patches at the last layer and at each of those middle layers (DeepStack), side by side: with
three of them four times the values that a token of Qwen2.5-VL has. Each has a merger of its own, which stays
in the model; the adapter trains that of the last layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from cdc_flower.models.qwen2_5_vl import Qwen25VL


class Qwen3VL(Qwen25VL):
    """`Qwen3VLForConditionalGeneration`. One picture a question, no video."""

    model_type = "qwen3_vl"
    model_class = Qwen3VLForConditionalGeneration
    mergers = ("merger", "deepstack_merger_list")
    tap = "hidden states of the tower at its last layer and at deepstack_visual_indexes, 4 patches in one row"
    checkpoints = "Qwen/Qwen3-VL-2B-Instruct, 4B, 8B, 32B"
    notes = "no video; a token has several times the values of others"

    def width(self, config: Any) -> int:
        """Width of the tower, for each patch of a token and each layer that is read."""
        return super().width(config) * (1 + len(config.vision_config.deepstack_visual_indexes))

    def tower_key(self, config: Any) -> str:
        """What is not in the weights: how patches are merged, and which layers are read."""
        v = config.vision_config
        return repr((v.spatial_merge_size, list(v.deepstack_visual_indexes)))

    def tokens(self, out: Any) -> Tensor:
        """Tokens (n, D) of the tower's output."""
        return torch.cat([out.pooler_output, *out.deepstack_features], -1)

    def project(self, model: Any, tokens: Tensor) -> Tensor:
        """What stands among the words, and what is added after each of the first layers, (M, H) each."""
        visual, last = model.model.visual, super().width(model.config)
        first, *middle = tokens.split(last, 1)
        placed = super().project(model, first)
        added = (
            merge(part.contiguous()) for merge, part in zip(visual.deepstack_merger_list, middle, strict=True)
        )
        return torch.cat([placed, *added], 1)

    def encoded(self, model: Any, rows: Tensor) -> BaseModelOutputWithPooling:
        """See `Family.encoded`."""
        placed, *added = rows.split(model.config.text_config.hidden_size, 1)
        listed: Any = [placed], [[part] for part in added]
        return BaseModelOutputWithDeepstackFeatures(pooler_output=listed[0], deepstack_features=listed[1])
