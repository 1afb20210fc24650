"""Several questions about one picture in a pass of training: the picture passes once.

A picture is most of a sequence, and in the models here what it becomes does not depend on what is asked. So
its keys and values are computed once, with gradients, and every question goes on from them, as an answer does
word by word (`models.answer`). The logits are those of one sequence a question, but for the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from cdc_flower.models.answer import axes_first, run
from cdc_flower.models.families import family_of, logits, parts
from cdc_flower.models.family import bare
from cdc_flower.models.inputs import Inputs
from cdc_flower.models.placement import computing, device_of


def possible(model: nn.Module, inputs: Inputs, of: Sequence[int]) -> bool:
    """Whether it can be done, and spares anything.

    Args:
        inputs: as in `answered`.
        of: as in `answered`.
    """
    if len(set(of)) == len(of) or int(inputs.question.min()) == 0 or not family_of(model).pictures_first:
        return False
    again = getattr(parts(model)[1], "gradient_checkpointing", False)  # it keeps no keys and values
    return not (again and model.training)


def answered(model: nn.Module, inputs: Inputs, of: Sequence[int]) -> Tensor:
    """Logits (B, A, V) float32 of the answers' positions, as `answer.forward` gives them.

    Args:
        inputs: B sequences with answers.
        of: (B,) of each the number of its picture: 0, 1, ...; rows of one number have the same prompt up to
            the question.
    """
    inputs = inputs.to(device_of(model))
    assert inputs.answer_ids is not None
    device = inputs.ids.device
    first = torch.tensor([of.index(i) for i in range(max(of) + 1)], device=device)
    picture = torch.tensor(of, device=device)
    pictures = _pictures(inputs, first)
    cache = DynamicCache()
    run(model, pictures, pictures.mask.long(), use_cache=True, past_key_values=cache)
    cache.batch_select_indices(picture)
    rest = inputs.mask.sum(1) - inputs.question
    place = torch.arange(int(rest.max()), device=device)
    there = place < rest[:, None]
    at = (inputs.question[:, None] + place).clamp_max(inputs.ids.shape[1] - 1)
    rows = torch.arange(len(at), device=device)[:, None]
    with computing():
        out = bare(model).model(
            input_ids=inputs.ids[rows, at],
            position_ids=axes_first(inputs.position_ids[rows, at]),
            attention_mask=torch.cat([pictures.mask[picture], there], 1).long(),
            past_key_values=cache,
            use_cache=True,
        )
    hidden = cast(Tensor, out.last_hidden_state)
    wanted = (inputs.length - 1 - inputs.question)[:, None]
    wanted = wanted + torch.arange(inputs.answer_ids.shape[1], device=device)
    picked = hidden[rows, wanted.clamp(0, hidden.shape[1] - 1)]
    return logits(model, picked).float()


def _pictures(inputs: Inputs, first: Tensor) -> Inputs:
    """The rows `first` up to where their questions begin."""
    some = {name: v[first] for name, v in vars(inputs).items() if v is not None}
    begins = some["question"]
    longest = int(begins.max())
    mask = torch.arange(longest, device=begins.device) < begins[:, None]
    mask &= some["mask"][:, :longest]
    cut = {name: some[name][:, :longest] for name in ("ids", "position_ids")}
    return replace(inputs, **{**some, **cut, "mask": mask, "length": begins, "answer_ids": None})
