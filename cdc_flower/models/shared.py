"""What device and cloud share: tokenizer, prompt, picture processor and the frozen vision tower.

Where teacher and student have one vision tower both read the same tokens, which is what lets the cloud use a
device's tokens without its picture. All that is shared is in the student's checkpoint, so a device opens no
file of the teacher's. A teacher that differs has a `Shared` of its own in the cloud (`models.teacher`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig

from cdc_flower.border import first_line
from cdc_flower.data.features import Grid
from cdc_flower.models import pixels, placement, retrieval, transform
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import PairError, config_of, folder_of, opened, paths, read, weights_digest
from cdc_flower.models.inputs import Text
from cdc_flower.models.retrieval import Head
from cdc_flower.models.transform import Transform
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig, UplinkConfig

MOST = 2**29  # bytes that pictures in a tower may have alive
MOST_FRAMES = 64  # of a clip


@dataclass(frozen=True, eq=False)
class Shared:
    """What both sides need; compare by `digest`."""

    name: str
    family: str  # of models
    path: str  # of the student
    digest: str  # sha256 hex of the student's weights, of the transform and the retrieval head
    tower: nn.Module  # vision tower, float32
    tower_digest: str  # see `tower_digest`
    config: Any  # the student's, of transformers
    text: Text
    processor: Any  # image processor of the checkpoints (PIL backend)
    width: int  # D
    vocab: int  # V
    max_answer_tokens: int
    card: dict[str, Any]  # pair.json, {} for bare checkpoints
    transform: Transform | None = None  # of tokens, where the pair folder has one for this tower
    head: Head | None = None  # for retrieval, where the pair folder has one

    @property
    def tokens_digest(self) -> str:
        """Hash of all that makes tokens of pixels: the tower, and how pictures are prepared for it."""
        return hashlib.sha256(f"{self.tower_digest} {processor_words(self.processor)}".encode()).hexdigest()

    @property
    def n_tokens(self) -> int:
        """N, where every sample has the same number of tokens; else that of the smallest."""
        return self.text.smallest.n

    @property
    def frames(self) -> int:
        """Pictures of a sample, where samples are clips; 0 = samples are pictures."""
        return self.text.frames

    @property
    def raster(self) -> bool:
        """Whether a token is a patch of one square."""
        return FAMILIES[self.family].raster

    @property
    def side(self) -> int:
        """Pixels of a side of the square that the tower reads."""
        return self.config.vision_config.image_size

    @property
    def patch(self) -> int:
        """Pixels of a side of a token, in a picture that is sent."""
        return FAMILIES[self.family].pixels(self.config)

    @property
    def grid(self) -> tuple[int, int, int]:
        """How the tokens of a sample lie; where pictures differ, of the smallest."""
        return self.text.smallest

    def fits(self, grid: tuple[int, int, int]) -> bool:
        """Whether a sample of this pair can have such a grid."""
        whole, count = Grid(*grid), self.text.pictures
        one = whole.of_frame(count)
        return one.of_clip(count) == whole and FAMILIES[self.family].fits(self.config, self.processor, one)

    def student_config(self) -> dict[str, Any]:
        """The student's configuration as costs are reckoned from it, with the frames of a sample."""
        return {**FAMILIES[self.family].cost_config(self.config), "frames": self.text.pictures}

    def transform_for(self, config: UplinkConfig) -> Transform | None:
        """The transform that tokens are sent in; None where the setting or the pair has none."""
        return None if config.transform == "none" else self.transform

    def to_send(self, image: Image.Image, grid: tuple[int, int, int]) -> np.ndarray:
        """Pixels (rows * patch, cols * patch, 3) uint8 of a picture of a grid, as it is sent.

        Where a token is a patch of one square, as the tower's processor makes it.
        """
        if self.raster:
            return pixels.as_read(self.processor, [image])[0]
        return pixels.sized(image, grid[1] * self.patch, grid[2] * self.patch)

    def encode(self, images: Sequence[Image.Image]) -> list[tuple[np.ndarray, Grid]]:
        """Vision tokens (n, D) float16 of each picture, and how they lie; as many at once as go together.

        The frames of a clip are pictures here.
        """
        family = FAMILIES[self.family]
        rows = max(1, MOST // picture_bytes(self.config, family.smallest(self.config).n))
        parts = [images[start : start + rows] for start in range(0, len(images), rows)]
        return [o for part in parts for o in family.encode(self.tower, self.config, self.processor, part)]


def picture_bytes(config: Any, tokens: int) -> int:
    """Bytes that a picture has alive in the tower, about: the hidden states of all layers are kept.

    Args:
        config: of a checkpoint.
        tokens: of the picture.
    """
    own = config.vision_config
    wide = getattr(own, "hidden_size", 0)
    layers = getattr(own, "num_hidden_layers", None) or getattr(own, "depth", 0)
    inner = getattr(own, "intermediate_size", 4 * wide)
    side, patch = getattr(own, "image_size", 0), getattr(own, "patch_size", 14)
    side = max(side) if isinstance(side, list | tuple) else side
    patch = max(patch) if isinstance(patch, list | tuple) else patch
    places = max((side // patch) ** 2 + 1, tokens)
    return 4 * (places * (wide * (layers + 6) + 2 * inner) + 3 * side * side)


def tower_digest(tower: nn.Module, config: Any) -> str:
    """Hash of a vision tower's weights and of the choice of its output layer.

    Weights are compared as float16: a tower stored as float32 or bfloat16 is the same as one in float16 where
    every value rounds to it, and otherwise another.
    """
    h = hashlib.sha256(FAMILIES[config.model_type].tower_key(config).encode())
    for name, p in sorted(tower.state_dict().items()):
        h.update(name.encode())
        h.update(p.detach().cpu().to(torch.float16).contiguous().numpy().tobytes())
    return h.hexdigest()


def processor_words(processor: Any) -> str:
    """All that a picture processor does, also what its file leaves to transformers."""
    return json.dumps(processor.to_dict(), sort_keys=True, default=str)


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash of words and ids of a vocabulary."""
    return hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def tower_shape(config: Any) -> str:
    """A vision tower in words, for messages."""
    v = config.vision_config
    side = f" {v.image_size}px" if hasattr(v, "image_size") else ""
    return f"{v.model_type}{side}/{v.patch_size} width {v.hidden_size} layers {v.num_hidden_layers}"


def checked_config(path: str, role: str) -> Any:
    """The configuration of a checkpoint of a family that is known.

    Raises:
        PairError: not readable, of another architecture, or with a tower that cannot be used.
    """
    config = config_of(path, role)
    if config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise PairError(f"{role} '{path}' is of architecture '{config.model_type}'; allowed: {known}")
    why = FAMILIES[config.model_type].refusal(config)
    if why:
        raise PairError(f"{role} '{path}': {why}")
    return config


def text_of(path: str, config: Any, role: str, frames: int = 0) -> Text:
    """Tokenizer, chat template and end tokens of a checkpoint; `frames` of a clip, 0 = of pictures.

    Raises:
        PairError: no tokenizer, one without the word of a picture or without an end, no chat template, one
            that fails or does not write every picture once, or a family that cannot read several.
    """
    family = FAMILIES[config.model_type]
    tokenizer = read(AutoTokenizer, path, role, "tokenizer")
    older = folder_of(path) / "chat_template.json"  # where processors kept it before transformers 4.48
    if not tokenizer.chat_template and older.is_file():
        tokenizer.chat_template = _older_template(older, role, path)
    tokenizer.chat_template = tokenizer.chat_template or family.template or None
    if not tokenizer.chat_template:
        raise PairError(
            f"{role} '{path}' has no chat template; add a file chat_template.jinja that writes the prompt "
            "of a user's turn with one picture and a question"
        )
    text = Text(tokenizer, family, config, _ends(path, tokenizer, role), frames)
    if frames > 1 and not family.several:
        able = ", ".join(name for name, other in FAMILIES.items() if other.several)
        raise PairError(f"{role} '{path}': a '{config.model_type}' reads no clips; allowed: {able}")
    for name, i, word in (
        ("of a picture's tokens", text.image_id, text.image),
        ("of a picture", family.mark(config), text.mark),
    ):
        if not word:
            says = f"its tokenizer has no word with id {i}, {name}; allowed: the checkpoint's own tokenizer"
            raise PairError(f"{role} '{path}': {says}")
    try:
        count = text.prompt("?").count(text.mark)
    except Exception as err:  # a template is a program, and fails as one
        raise PairError(
            f"{role} '{path}': its chat template cannot be used ({first_line(err)}); allowed: one that "
            "writes the prompt of a user's turn with one picture and a question"
        ) from None
    if count != text.pictures:
        wanted = f"{frames} times for {frames} frames" if frames > 1 else "once"
        says = f"its chat template writes '{text.mark}' {count} times; allowed: {wanted}"
        raise PairError(f"{role} '{path}': {says}")
    return text


def _older_template(file: Path, role: str, path: str) -> str:
    """The chat template in a file of older processors."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        found = first_line(err)
    else:
        if isinstance(found, str):
            return found
        found = type(found).__name__
    raise PairError(
        f"{role} '{path}': {file.name} has no text 'chat_template' ({found}); allowed: "
        "chat_template.jinja, or a JSON object with it"
    )


def _ends(path: str, tokenizer: Any, role: str) -> tuple[int, ...]:
    """Ids that end an answer; the first is the one that the chat template writes after it, where it does.

    Raises:
        PairError: nothing ends one.
    """
    try:
        ends: Any = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:
        ends = None
    ends = tokenizer.eos_token_id if ends is None else ends
    ends = ends if isinstance(ends, list) else [ends]
    if not ends or any(type(i) is not int or i < 0 for i in ends):
        raise PairError(
            f"{role} '{path}' has no end token ({ends[0] if ends else 'none'}); allowed: 'eos_token_id' in "
            "generation_config.json, or 'eos_token' in tokenizer_config.json"
        )
    turns = [{"role": role, "content": [{"type": "text", "text": role}]} for role in ("user", "assistant")]
    try:
        after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("assistant")[2]
    except Exception:  # a template of prompts alone, or none that can be used, which is said elsewhere
        after = ""
    words = {i: str(tokenizer.convert_ids_to_tokens(i)) for i in ends}
    return tuple(sorted(ends, key=lambda i: after.find(words[i]) % (len(after) + 1)))  # absent: -1, the last


def load_tower(path: str, role: str = "student") -> nn.Module:
    """The vision tower of a checkpoint alone, in float32: the language model is opened without its layers."""
    config = config_of(path, role)
    config.text_config.num_hidden_layers = 0
    family = FAMILIES[config.model_type]
    parts, of = (f"model.{family.tower}.",), family.model_class
    model = opened(of, path, role, parts, config=config, dtype=torch.float32)
    return family.take_tower(model).to(placement.here().device)


@kept(4)
def load_shared(config: PairConfig, data_name: str, frames: int = 0) -> Shared:
    """Load what both sides need, from the student's checkpoint and the pair's folder.

    Args:
        frames: of a clip, for checkpoints without a card; 0 = samples are pictures.

    Raises:
        PairError: nothing found, another architecture, or a checkpoint that is not whole.
    """
    found = paths(config, data_name)
    shape = checked_config(found.student, "student")
    tower = load_tower(found.student)
    digest = tower_digest(tower, shape)
    turn = transform.load(found.transforms, FAMILIES[shape.model_type].width(shape), digest)
    frames = card_frames(found.card) if found.card else frames
    made = reader(found.student, "student", shape, tower, digest, config, frames)
    head = retrieval.load(found.folder, shape.text_config.hidden_size)
    own = weights_digest(found.student, turn=turn, head=head)
    return replace(made, name=found.name, digest=own, card=found.card, transform=turn, head=head)


def card_frames(card: Mapping[str, Any]) -> int:
    """Frames of the clips that a pair was made for; 0 = it was made for pictures.

    Raises:
        PairError: the card says something else.
    """
    found = card.get("frames", 0)
    if type(found) is not int or not 0 <= found <= MOST_FRAMES:
        raise PairError(f"pair.json: frames = {found!r}; allowed: a whole number up to {MOST_FRAMES}")
    return found


def reader(
    path: str, role: str, shape: Any, tower: nn.Module, digest: str, config: PairConfig, frames: int = 0
) -> Shared:
    """What reads pictures and questions for the model of a checkpoint.

    Args:
        path: the checkpoint.
        role: "teacher" or "student", for messages.
        shape: its configuration.
        tower: its vision tower.
        digest: of that.
        config: says the longest answer.
        frames: of a clip; 0 = samples are pictures.

    Raises:
        PairError: what lacks or cannot be used: tokenizer, chat template, picture processor.
    """
    return Shared(
        name=Path(path).name,
        family=shape.model_type,
        path=path,
        digest=digest,
        tower=tower,
        tower_digest=digest,
        config=shape,
        text=text_of(path, shape, role, frames),
        processor=read(AutoImageProcessor, path, role, "picture processor", backend="pil"),
        width=FAMILIES[shape.model_type].width(shape),
        vocab=shape.text_config.vocab_size,
        max_answer_tokens=config.max_answer_tokens,
        card={},
    )
