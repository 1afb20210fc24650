"""What device and cloud share: tokenizer, prompt, picture processor and the frozen vision tower.

Teacher and student have one vision tower and one tokenizer; that both read the same tokens is what lets the
cloud use a device's tokens without its picture. All of it is in the student's checkpoint, so a device opens
no file of the teacher's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration

from cdc_flower.config import PairConfig, UplinkConfig
from cdc_flower.models import transform, vlm
from cdc_flower.models.folders import PairError, Paths, config_of, opened, paths, weights_digest
from cdc_flower.models.transform import Transform
from cdc_flower.models.vlm import Text

LLAVA_PREFIX, LLAVA_SUFFIX = "USER: ", "\n{question} ASSISTANT:"


@dataclass(frozen=True, eq=False)
class Shared:
    """What both sides need; compare by `digest`."""

    name: str
    family: str  # of models
    student_path: str
    digest: str  # sha256 hex of the student's weights and of the transform
    tower: nn.Module  # vision tower, float32
    tower_digest: str  # see `tower_digest`
    config: Any  # the student's, of transformers
    text: Text
    processor: Any  # image processor of the checkpoints (PIL backend)
    n_tokens: int  # N
    width: int  # D
    vocab: int  # V
    max_answer_tokens: int
    card: dict[str, Any]  # pair.json, {} for bare checkpoints
    transform: Transform | None = None  # of tokens, where the pair folder has one for this tower

    @property
    def side(self) -> int:
        """Pixels of a side of the square that the tower reads."""
        return self.config.vision_config.image_size

    @property
    def patch(self) -> int:
        """Pixels of a side of one of its patches."""
        return self.config.vision_config.patch_size

    @property
    def grid(self) -> tuple[int, int, int]:
        """How the tokens of a picture lie: how many, rows, columns."""
        return self.n_tokens, self.side // self.patch, self.side // self.patch

    def fits(self, grid: tuple[int, int, int]) -> bool:
        """Whether a picture of this pair can have such a grid."""
        return tuple(grid) == self.grid

    def student_config(self) -> dict[str, Any]:
        """The student's `config.json`, defaults filled in."""
        return self.config.to_dict()

    def transform_for(self, config: UplinkConfig) -> Transform | None:
        """The transform that tokens are sent in; None where the setting or the pair has none."""
        return None if config.transform == "none" else self.transform

    def encode(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Vision tokens of pictures: (B, N, D) float16."""
        return vlm.encode_images(self.tower, self.config, self.processor, images)


def tower_digest(tower: nn.Module, config: Any) -> str:
    """Hash of a vision tower's weights and of the choice of its output layer.

    Weights are compared as float16: a tower stored as float32 or bfloat16 is the same as one in float16 where
    every value rounds to it, and otherwise another.
    """
    h = hashlib.sha256(repr((config.vision_feature_layer, config.vision_feature_select_strategy)).encode())
    for name, p in sorted(tower.state_dict().items()):
        h.update(name.encode())
        h.update(p.detach().cpu().to(torch.float16).contiguous().numpy().tobytes())
    return h.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash of words and ids of a vocabulary."""
    return hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def tower_shape(config: Any) -> str:
    """A vision tower in words, for messages."""
    v = config.vision_config
    return (
        f"{v.model_type} {v.image_size}px/{v.patch_size} width {v.hidden_size} layers {v.num_hidden_layers}"
    )


def checked_config(path: str, role: str) -> Any:
    """The configuration of a checkpoint of a family that is known.

    Raises:
        PairError: not readable, of another architecture, or with a tower that cannot be used.
    """
    config = config_of(path, role)
    if config.model_type != "llava":
        raise PairError(f"{role} '{path}' is of architecture '{config.model_type}'; allowed: llava")
    drops = config.vision_feature_select_strategy == "default"
    if drops and not _has_class_token(config):
        raise PairError(
            f"{role} '{path}': tower '{config.vision_config.model_type}' has no class token to drop; "
            "allowed: vision_feature_select_strategy 'full'"
        )
    return config


def _has_class_token(config: Any) -> bool:
    return "siglip" not in config.vision_config.model_type


def _tokens_of(config: Any) -> int:
    vision = config.vision_config
    n = (vision.image_size // vision.patch_size) ** 2
    full = config.vision_feature_select_strategy == "full"
    return n + 1 if full and _has_class_token(config) else n


def _tower(path: str) -> nn.Module:
    """The vision tower of a checkpoint alone, in float32: the language model is opened without its layers."""
    config = config_of(path, "student")
    config.text_config.num_hidden_layers = 0
    model = opened(
        LlavaForConditionalGeneration,
        path,
        "student",
        ("model.vision_tower",),
        config=config,
        dtype=torch.float32,
    )
    tower = model.model.vision_tower
    return tower.cuda() if torch.cuda.is_available() else tower


@lru_cache(maxsize=4)
def load_shared(config: PairConfig, data_name: str) -> Shared:
    """Load what both sides need, from the student's checkpoint and the pair's folder.

    Raises:
        PairError: nothing found, another architecture, or a checkpoint that is not whole.
    """
    found = paths(config, data_name)
    shape = checked_config(found.student, "student")
    tower = _tower(found.student)
    digest = tower_digest(tower, shape)
    layers = shape.vision_feature_layer
    width = shape.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
    turn = transform.load(found.folder or Path(found.student), width, digest)
    n = _tokens_of(shape)
    return Shared(
        name=found.name,
        family=shape.model_type,
        student_path=found.student,
        digest=weights_digest(found.student, turn=turn),
        tower=tower,
        tower_digest=digest,
        config=shape,
        text=Text(AutoTokenizer.from_pretrained(found.student), *_prompt(config, found), n),
        processor=AutoImageProcessor.from_pretrained(found.student, backend="pil"),
        n_tokens=n,
        width=width,
        vocab=shape.text_config.vocab_size,
        max_answer_tokens=config.max_answer_tokens,
        card=found.card,
        transform=turn,
    )


def _prompt(config: PairConfig, found: Paths) -> tuple[str, str]:
    if found.card:
        return found.card["prompt_prefix"], found.card["prompt_suffix"]
    return config.prompt_prefix or LLAVA_PREFIX, config.prompt_suffix or LLAVA_SUFFIX
