"""Pairs of random weights in real shapes, written as the hub has them: a LLaVA teacher and student.

Weights in bfloat16, in shards with an index; tokenizer, chat template and picture processor are files of the
checkpoint. Tokenizer and template are those of the packaged pair, its words filled up to the vocabulary.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
)

from cdc_flower.models.folders import WEIGHTS

SHARD = "1GB"
PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Language:
    """Shapes of a Qwen2 language model."""

    hidden: int
    layers: int
    heads: int
    keys: int
    intermediate: int


@dataclass(frozen=True)
class Tower:
    """Shapes of a CLIP tower."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    side: int
    patch: int


@dataclass(frozen=True)
class Shapes:
    """Of a pair: both have one tower and one vocabulary."""

    student: Language
    teacher: Language
    tower: Tower
    vocab: int


REAL = Shapes(
    student=Language(896, 24, 14, 2, 4864),  # Qwen2-0.5B
    teacher=Language(1536, 28, 12, 2, 8960),  # Qwen2-1.5B
    tower=Tower(1024, 24, 16, 4096, 336, 14),  # CLIP ViT-L/14 at 336 px: 576 tokens
    vocab=151_936,
)
QUICK = Shapes(Language(64, 2, 4, 2, 128), Language(96, 3, 4, 2, 192), Tower(32, 2, 2, 64, 64, 8), 1000)


def write(shapes: Shapes, folder: Path, shard: str = SHARD) -> Path:
    """Write `teacher` and `student` into a folder.

    Args:
        shapes: of the pair.
        folder: is made.
        shard: the most of a file, as transformers has it.
    """
    tower: dict[str, torch.Tensor] = {}
    for seed, role in enumerate(("student", "teacher")):
        model = built(shapes, getattr(shapes, role), seed)
        tower = tower or model.model.vision_tower.state_dict()
        model.model.vision_tower.load_state_dict(tower)
        model.save_pretrained(folder / role, max_shard_size=shard)
        _beside(folder / role, shapes)
    return folder


def built(shapes: Shapes, of: Language, seed: int = 0) -> Any:
    """A model in bfloat16, of random weights."""
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        return LlavaForConditionalGeneration(_config(shapes, of))
    finally:
        torch.set_default_dtype(before)


def _config(shapes: Shapes, of: Language) -> Any:
    own, shared = shapes.tower, AutoConfig.from_pretrained(WEIGHTS / "scenes" / "student")
    return LlavaConfig(
        text_config=Qwen2Config(
            hidden_size=of.hidden,
            num_hidden_layers=of.layers,
            num_attention_heads=of.heads,
            num_key_value_heads=of.keys,
            intermediate_size=of.intermediate,
            vocab_size=shapes.vocab,
            tie_word_embeddings=True,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=own.hidden,
            num_hidden_layers=own.layers,
            num_attention_heads=own.heads,
            intermediate_size=own.intermediate,
            image_size=own.side,
            patch_size=own.patch,
            projection_dim=own.hidden,
        ),
        image_token_index=shared.image_token_id,
        tie_word_embeddings=True,
    )


def _beside(folder: Path, shapes: Shapes) -> None:
    """Tokenizer, template, end token and picture processor."""
    source = WEIGHTS / "scenes" / "student"
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder / name)
    words = json.loads((source / "tokenizer.json").read_text())
    vocab = words["model"]["vocab"]
    vocab |= {f"w{i}": i for i in range(len(vocab), shapes.vocab)}
    (folder / "tokenizer.json").write_text(json.dumps(words))
    processor, side = json.loads((source / PROCESSOR).read_text()), shapes.tower.side
    processor["size"] = processor["crop_size"] = {"height": side, "width": side}
    (folder / PROCESSOR).write_text(json.dumps(processor))
    GenerationConfig(eos_token_id=vocab["</s>"], pad_token_id=vocab["<pad>"]).save_pretrained(folder)
