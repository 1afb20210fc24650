"""Several questions about a picture in one pass give what one pass a question gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdc_flower.models import several, vlm
from cdc_flower.models.families import family_of

OF = [0, 0, 1, 2, 2, 2]


@pytest.fixture
def asked(made):
    """Six questions about three pictures, the second of which is complete, with answers."""
    rng = np.random.default_rng(0)
    kept = [np.sort(rng.permutation(grid.n)[: max(1, grid.n // 2)]) for grid in made.grids]
    kept[1] = np.arange(made.grids[1].n)
    questions = [made.asked[i % 3] for i in range(6)]
    return vlm.collate(
        made.shared.text,
        [made.tokens[i][kept[i]].astype(np.float32) for i in OF],
        questions,
        [made.asked[(i + 1) % 3][:2] for i in range(6)],
        [kept[i] for i in OF],
        grids=[made.grids[i] for i in OF],
    )


def test_logits_and_gradients_are_those_of_one_sequence_a_question(made, asked):
    model = made.model
    if not several.possible(model, asked, OF):
        assert not family_of(model).pictures_first
        return
    weight = next(p for p in family_of(model) and model.lm_head.parameters())
    projector = next(model.model.get_submodule(family_of(model).projector).parameters())
    found = []
    model.requires_grad_(False)
    for leaf in (weight, projector):
        leaf.requires_grad_(True)
    model.train()
    try:
        for logits in (several.answered(model, asked, OF), vlm.forward(model, asked).logits):
            there = asked.answer_ids != -100
            loss = torch.nn.functional.cross_entropy(logits[there], asked.answer_ids[there])
            found.append((logits[there], *torch.autograd.grad(loss, (weight, projector))))
    finally:
        model.eval().requires_grad_(True)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.detach().abs().max()), rtol=1e-3)
    assert float(found[0][2].abs().max()) > 0


def test_a_picture_a_question_spares_nothing(make):
    made = make("llava")
    inputs = vlm.collate(made.shared.text, made.tokens[:1], made.asked[:1], grids=made.grids[:1])
    assert not several.possible(made.model, inputs, [0])
    assert several.possible(made.model, inputs, [0, 0])
