"""Maps of attention are read layer by layer, whatever the model computes attention with."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from cdc_flower.models import vlm
from cdc_flower.models.attention import shown
from cdc_flower.models.families import parts
from cdc_flower.models.student import device_model
from tests import tiny


@pytest.fixture
def inputs(shared):
    tokens = np.random.default_rng(0).normal(size=(2, shared.n_tokens, shared.width))
    return vlm.collate(shared.text, tokens, [shared.text.question_ids("where is the star?")] * 2)


@torch.no_grad()
def test_one_map_is_alive_at_a_time_and_none_afterwards(shared, config, inputs):
    model = device_model(shared, config.pair)
    seen, alive = [], []

    def take(layer):
        alive.append(sum(of() is not None for of in seen))
        seen.append(weakref.ref(layer))

    with shown(model, take):
        vlm.run(model, inputs, inputs.mask.long())
    assert len(seen) == len(parts(model)[1].layers) > 1
    assert alive == [0] * len(seen)
    assert not any(of() is not None for of in seen)


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
