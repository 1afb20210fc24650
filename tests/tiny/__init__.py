"""Checkpoints of a few thousand random weights, in the layout that the hub has of each family.

`config.json`, bfloat16 weights in shards with an index, under the hub's names of tensors, tokenizer, chat
template and the configuration of the picture processor. A family is a function in `tests.tiny.families`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from cdc_flower.models.families import FAMILIES
from tests.tiny import families
from tests.tiny.parts import Size, Tiny

BUILDERS: dict[str, Callable[[str, Size], Tiny]] = {
    "llava": families.llava,
    "llava-siglip": families.llava_siglip,
    "smolvlm": families.smolvlm,
    "idefics3": families.idefics3,
    "qwen2_5_vl": families.qwen2_5_vl,
    "gemma3": families.gemma3,
    "internvl": families.internvl,
    "paligemma": families.paligemma,
    "qwen3_vl": families.qwen3_vl,
    "llava_onevision": families.llava_onevision,
}
"""Name -> from words of the vocabulary and a size: a model and its files."""
SMALL = Size()
SCALE = 0.25  # of random weights: large enough that answers depend on picture and question


def write(
    name: str, folder: Path, words: str, size: Size = SMALL, seed: int = 0, tower: nn.Module | None = None
) -> Path:
    """Write a checkpoint; its folder.

    Args:
        name: a key of `BUILDERS`.
        words: of the vocabulary.
        tower: the vision tower to have, as `Shared.tower`; None = one with random weights.
    """
    torch.manual_seed(seed)
    made = BUILDERS[name](words, size)
    model: Any = made.model_class(made.config)
    with torch.no_grad():
        words = (
            model.get_input_embeddings().weight
        )  # small: where they are the head's, answers repeat the prompt
        scale = SCALE * min(1.0, (64 / size.hidden) ** 0.5)
        for p in model.parameters():
            p.add_((0.05 if p is words or p.dim() < 2 else scale) * torch.randn_like(p))
    if tower is not None:
        family = FAMILIES[made.config.model_type]
        family.take_tower(model)
        family.give_tower(model, copy.deepcopy(tower))
    shard = "40KB" if size.hidden <= 64 else "200MB"
    model.bfloat16().save_pretrained(folder, max_shard_size=shard)
    ends = made.tokenizer.convert_tokens_to_ids(list(made.ends)) or made.tokenizer.eos_token_id
    GenerationConfig(eos_token_id=ends, pad_token_id=made.tokenizer.pad_token_id).save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    file, kept = "preprocessor_config.json", made.processor
    if made.nested:
        file, kept = "processor_config.json", {"image_processor": made.processor}
    (folder / file).write_text(json.dumps(kept, indent=2))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(made.as_on_hub(config), indent=2))
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    return folder
