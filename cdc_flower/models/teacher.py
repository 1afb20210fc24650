"""The teacher: only the cloud opens it.

A teacher that has the student's vision tower and tokenizer reads what a device sent as the student does. One
that differs has a `Shared` of its own: tower, picture processor and prompt. With another tower it reads
pictures alone, because tokens of one tower mean nothing to the other; with another tokenizer it teaches by
the text of its answers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import AutoImageProcessor, AutoTokenizer

from cdc_flower.models import placement
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import PairError, opened, paths, read, weights_digest
from cdc_flower.models.shared import (
    Shared,
    checked_config,
    load_tower,
    processor_words,
    reader,
    text_of,
    tokenizer_digest,
    tower_digest,
    tower_shape,
)
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig


@dataclass(frozen=True, eq=False)
class Teacher:
    """The model that teaches, and what the whole pair is known by.

    Attributes:
        digest: as `pair_digest`.
        own: what reads pictures and questions for it, where that is not what the student has.
        tokens: whether it reads the student's tokens.
        words: whether ids of its answers are those of the student.
    """

    model: nn.Module
    digest: str
    own: Shared | None = None
    tokens: bool = True
    words: bool = True


@dataclass(frozen=True)
class Unlike:
    """What differs between teacher and student, in words for messages; "" where they are alike."""

    tower: str
    words: str
    family: str  # of the student


def pair_digest(config: PairConfig, shared: Shared, data_name: str) -> str:
    """sha256 hex of both checkpoints, of the transform and the retrieval head; opens no model.

    Of bare checkpoints, also of what prepares their pictures; in a pair folder that is as it was made.
    """
    found = paths(config, data_name)
    weights = weights_digest(found.teacher, found.student, turn=shared.transform, head=shared.head)
    if found.folder is not None:
        return weights
    prepared = f"{processor_words(shared.processor)} {_prepared(found.teacher)}"
    return hashlib.sha256(f"{weights} {prepared}".encode()).hexdigest()


def _prepared(path: str) -> str:
    """What prepares a teacher's pictures; "" where it has nothing, as one with the student's tower may."""
    try:
        return processor_words(read(AutoImageProcessor, path, "teacher", "picture processor", backend="pil"))
    except PairError:
        return ""


def teacher_config(config: PairConfig, data_name: str) -> dict[str, Any]:
    """The teacher's configuration as costs are reckoned from it; opens no weights."""
    found = checked_config(paths(config, data_name).teacher, "teacher")
    return FAMILIES[found.model_type].cost_config(found)


@kept(4)
def unlike(config: PairConfig, data_name: str) -> Unlike:
    """What configurations and tokenizers say; towers of one shape may have other weights: `has_tower`.

    Raises:
        PairError: a checkpoint of another architecture, without a tokenizer, or a teacher that has to write
            its own prompts and has no chat template that can.
    """
    found = paths(config, data_name)
    both = (found.teacher, "teacher"), (found.student, "student")
    shapes = [checked_config(*one) for one in both]
    towers = [_tower_words(shape) for shape in shapes]
    digests = [_words_digest(*one) for one in both]
    if towers[0] != towers[1] or digests[0] != digests[1]:
        text_of(found.teacher, shapes[0], "teacher")  # its own prompt
    return Unlike(
        " against ".join(towers) if towers[0] != towers[1] else "",
        " against ".join(d[:12] for d in digests) if digests[0] != digests[1] else "",
        shapes[1].model_type,
    )


@kept(4)
def has_tower(config: PairConfig, shared: Shared, data_name: str) -> bool:
    """Whether the teacher has the student's tower; its own is read where both have one shape."""
    path = paths(config, data_name).teacher
    if path == shared.path:
        return True
    shape = checked_config(path, "teacher")
    if _tower_words(shape) != _tower_words(shared.config):
        return False
    return tower_digest(load_tower(path, "teacher"), shape) == shared.tower_digest


def _tower_words(shape: Any) -> str:
    return f"{shape.model_type} {tower_shape(shape)}"


def _words_digest(path: str, role: str) -> str:
    return tokenizer_digest(read(AutoTokenizer, path, role, "tokenizer"))


@kept(2)
def load_teacher(config: PairConfig, shared: Shared, data_name: str) -> Teacher:
    """Load the teacher, and what it has of its own.

    Raises:
        PairError: nothing found, another architecture, or a checkpoint that is not whole.
    """
    path = paths(config, data_name).teacher
    shape = checked_config(path, "teacher")
    words = _words_digest(path, "teacher") == tokenizer_digest(shared.text.tokenizer)
    family, tokens = FAMILIES[shape.model_type], has_tower(config, shared, data_name)
    model = opened(family.model_class, path, "teacher", **placement.teacher())
    family.take_tower(model)  # in another number format; passes begin behind it
    own = None
    if not (tokens and words and shape.image_token_id == shared.text.image_id):
        tower = shared.tower if tokens else load_tower(path, "teacher")
        own = reader(path, "teacher", shape, tower, tower_digest(tower, shape), config, shared.frames)
        words = words and own.text.eos == shared.text.eos
    if words:
        _cut(model.lm_head, shared.vocab)
    return Teacher(placement.settled(model), pair_digest(config, shared, data_name), own, tokens, words)


def _cut(head: nn.Linear, vocab: int) -> None:
    """Leave the ids that the student has, too: a vocabulary is often padded to another size in each model."""
    if head.out_features > vocab:
        head.weight = nn.Parameter(head.weight[:vocab].clone(), requires_grad=False)
        head.out_features = vocab
