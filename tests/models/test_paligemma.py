"""What is PaliGemma's own: a prefix in which all see all, positions from 1, its prompt, bounded logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PaliGemmaProcessor

from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from tests.models.conftest import QUESTIONS


@pytest.fixture
def paligemma(make):
    return make("paligemma")


def test_every_picture_has_the_towers_patches(paligemma):
    assert paligemma.grids == [Grid(16, 4, 4)] * 3


def test_the_prompt_is_that_of_the_processor(paligemma):
    tokenizer = AutoTokenizer.from_pretrained(paligemma.shared.path)
    assert tokenizer.chat_template is None
    processor = paligemma.shared.processor
    processor.image_seq_length = 16  # a picture processor of SigLIP does not keep it
    theirs = PaliGemmaProcessor(processor, tokenizer)
    made = theirs(text=[QUESTIONS[0]], images=paligemma.images[:1], add_special_tokens=False)
    assert [*paligemma.shared.text.prefix_ids(), *paligemma.asked[0]] == list(made["input_ids"][0])
    assert set(made["token_type_ids"][0]) == {0}


def test_positions_begin_at_one_and_the_answer_is_no_part_of_the_prefix(paligemma):
    text = paligemma.shared.text
    inputs = vlm.collate(text, paligemma.tokens[:2], paligemma.asked[:2], [[5, 6], [5]])
    size = len(text.prefix_ids()) + len(paligemma.asked[0])
    assert inputs.position_ids[0].tolist()[: size + 3] == list(range(1, size + 4))
    types = text.family.arguments(inputs)["token_type_ids"]
    assert types[0].tolist()[: size + 3] == [0] * size + [1] * 3


@torch.no_grad()
def test_the_prefix_sees_the_question_and_nothing_sees_the_answer_before_it(paligemma):
    text = paligemma.shared.text
    asked = [paligemma.asked[0]] * 3
    answers = [[5, 6], [5, 7], [5, 6]]
    asked[2] = [*asked[2][:-1], 9]
    inputs = vlm.collate(text, [paligemma.tokens[0]] * 3, asked, answers)
    hidden = vlm.forward(paligemma.model, inputs).hidden
    second = int(inputs.length[0]) + 1
    torch.testing.assert_close(hidden[0, :second], hidden[1, :second])
    assert not torch.allclose(hidden[0, second], hidden[1, second])
    assert not torch.allclose(hidden[0, 0], hidden[2, 0])


@torch.no_grad()
def test_logits_are_bounded_in_every_step(paligemma):
    inputs = vlm.collate(paligemma.shared.text, paligemma.tokens, paligemma.asked)
    assert vlm.forward(paligemma.model, inputs).logits.abs().max() < 0.5
    free = paligemma.model.lm_head(vlm.forward(paligemma.model, inputs).hidden)
    assert free.abs().max() > 0.5, "the bound does something"
    steps = vlm.answer(paligemma.model, paligemma.shared.text, inputs, 3, top_k=2).top_logits
    assert np.abs(np.concatenate(steps)).max() < 0.5
