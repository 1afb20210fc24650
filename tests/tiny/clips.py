"""A pair for clips with random weights: three frames of 2 x 2 tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from cdc_flower.models.folders import weights_digest
from experiments.pretrain.language import make_llava, make_tokenizer
from experiments.pretrain.pretrain import _write_checkpoint
from experiments.pretrain.recipes import LanguageModel

FRAMES, SIDE, PATCH = 3, 8, 4


def write_pair(folder: Path, words: str, name: str = "clips") -> Path:
    """Write teacher, student and card; the folder.

    Args:
        words: of the vocabulary; others are unknown to the tokenizer.
        name: of the data that the pair is for.
    """
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=16,
    )
    tower = CLIPVisionModel(vision)
    tokenizer = make_tokenizer(pd.DataFrame({"question": [words], "answer": ["yes"]}), FRAMES)
    for role, hidden in (("teacher", 128), ("student", 64)):
        model = make_llava(tower, LanguageModel(hidden, 2, 128), tokenizer, 0, FRAMES)
        _write_checkpoint(model.eval(), tokenizer, SIDE, folder / role)
    digest = weights_digest(folder / "teacher", folder / "student")
    card = {"format": 1, "name": name, "digest": digest, "frames": FRAMES, "known": {}}
    (folder / "pair.json").write_text(json.dumps(card))
    return folder
