"""Maps of attention are read layer by layer, whatever the model computes attention with."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cdc_flower.models import vlm
from cdc_flower.models.attention import Paid, shown
from cdc_flower.models.families import parts
from cdc_flower.models.shared import load_shared
from cdc_flower.models.student import device_model
from cdc_flower.stages import PairConfig
from tests import tiny


@pytest.fixture
def inputs(shared):
    tokens = np.random.default_rng(0).normal(size=(2, shared.n_tokens, shared.width))
    return vlm.collate(shared.text, tokens, [shared.text.question_ids("where is the star?")] * 2)


@torch.no_grad()
def test_one_map_is_alive_at_a_time_and_none_afterwards(deep_student, inputs):
    pair = PairConfig(teacher="nowhere", student=str(deep_student), lora_rank=4)
    model = device_model(load_shared(pair, "x"), pair)
    seen, alive = [], []

    def take(layer):
        alive.append(sum(of() is not None for of in seen))
        seen.append(weakref.ref(layer))

    with shown(model, take):
        vlm.run(model, inputs, inputs.mask.long())
    assert len(seen) == len(parts(model)[1].layers) > 1
    assert alive == [0] * len(seen)
    assert not any(of() is not None for of in seen)


def test_the_bits_of_a_row_do_not_depend_on_others():
    draws, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    torch.set_num_threads(1)
    maps = torch.rand(40, 4, 90, 90, generator=draws)
    question, mask = torch.full((40,), 70), torch.ones(40, 90, dtype=torch.bool)
    length = 80 + torch.arange(40) % 10

    def paid(rows):
        inputs: Any = SimpleNamespace(question=question[rows], length=length[rows])
        found = Paid(inputs, mask[rows])
        found.add(maps[rows])
        return found.mean

    whole = paid(torch.arange(40))
    for count in (1, 4, 8, 33):
        rows = torch.randperm(40, generator=draws)[:count]
        assert torch.equal(paid(rows), whole[rows])
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", sorted(tiny.BUILDERS))
@torch.no_grad()
def test_it_is_what_the_class_says_of_itself_with_any_attention(make, name):
    made = make(name)
    model, language = made.model, parts(made.model)[1]
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    maps = torch.stack(vlm.run(model, inputs, inputs.mask.long(), output_attentions=True).attentions)
    rows = [
        maps[:, b, :, int(inputs.question[b]) : int(inputs.length[b])].mean((0, 1))
        for b in range(len(maps[0]))
    ]
    expected = torch.stack([(r.mean(0) + r[-1]) / 2 for r in rows])
    for way in ("eager", "sdpa"):
        before = language.config._attn_implementation
        model.config._attn_implementation = way
        try:
            found = vlm.forward(model, inputs, attention=True).attended
            assert language.config._attn_implementation == way
        finally:
            model.config._attn_implementation = before
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
