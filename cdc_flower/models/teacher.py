"""The teacher: only the cloud opens it.

It must have the student's vision tower and tokenizer; a teacher that does not is refused, because tokens of
one tower would mean nothing to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import PairError, opened, paths, read, weights_digest
from cdc_flower.models.shared import Shared, checked_config, tokenizer_digest, tower_digest, tower_shape
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig


@dataclass(frozen=True, eq=False)
class Teacher:
    """The model that teaches, and what the whole pair is known by."""

    model: nn.Module
    digest: str  # as `pair_digest`


def pair_digest(config: PairConfig, shared: Shared, data_name: str) -> str:
    """sha256 hex of both checkpoints and of the transform; opens no model."""
    found = paths(config, data_name)
    return weights_digest(found.teacher, found.student, turn=shared.transform)


def teacher_config(config: PairConfig, data_name: str) -> dict[str, Any]:
    """The teacher's configuration as costs are reckoned from it; opens no weights."""
    found = checked_config(paths(config, data_name).teacher, "teacher")
    return FAMILIES[found.model_type].cost_config(found)


@kept(2)
def load_teacher(config: PairConfig, shared: Shared, data_name: str) -> Teacher:
    """Load the teacher and compare its tower and tokenizer with the student's.

    Raises:
        PairError: nothing found, another architecture, a checkpoint that is not whole, or a tower or
            tokenizer that differs.
    """
    path = paths(config, data_name).teacher
    shape = checked_config(path, "teacher")
    _same("family", shape.model_type, shared.family)
    _same("id of a picture", str(shape.image_token_id), str(shared.text.image_id))
    _same("vision tower", tower_shape(shape), tower_shape(shared.config))
    tokenizer = read(AutoTokenizer, path, "teacher", "tokenizer")
    digests = (tokenizer_digest(t) for t in (tokenizer, shared.text.tokenizer))
    _same("tokenizer", *(d[:12] for d in digests))
    family = FAMILIES[shared.family]
    model = opened(family.model_class, path, "teacher", dtype="auto")
    own = tower_digest(family.take_tower(model), shape)  # `shared.tower` is it; the pass starts at the tokens
    _same("vision tower", own[:12], shared.tower_digest[:12])
    _cut(model.lm_head, shared.vocab)
    model = model.to(torch.bfloat16).cuda() if torch.cuda.is_available() else model.float()
    return Teacher(model, pair_digest(config, shared, data_name))


def _cut(head: nn.Linear, vocab: int) -> None:
    """Leave the ids that the student has, too: a vocabulary is often padded to another size in each model."""
    if head.out_features > vocab:
        head.weight = nn.Parameter(head.weight[:vocab].clone(), requires_grad=False)
        head.out_features = vocab


def _same(what: str, teacher: str, student: str) -> None:
    if teacher != student:
        raise PairError(
            f"teacher and student do not share one {what} ({teacher} against {student}); tokens "
            "of one would mean nothing to the other"
        )
