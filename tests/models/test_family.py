"""What a family does not say of itself is what most of them do."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cdc_flower.models.family import bare
from cdc_flower.models.llava import Llava
from cdc_flower.models.smolvlm import SmolVLM


@pytest.mark.parametrize("family", [Llava(), SmolVLM()])
def test_lora_is_on_the_language_model_alone(family):
    layer = f"model.{family.language}.layers.3."
    wanted = [layer + "self_attn.q_proj", layer + "self_attn.o_proj", layer + "mlp.gate_proj"]
    wanted += [f"model.{family.language}.embed_tokens", "lm_head"]
    towers = [f"model.{family.tower}.encoder.layers.3.self_attn.q_proj", f"model.{family.projector}.proj"]
    assert all(re.fullmatch(family.lora_targets, name) for name in wanted)
    assert not any(re.fullmatch(family.lora_targets, name) for name in towers)


def test_positions_are_counted_from_the_start_of_the_complete_sequence(make):
    made = make("smolvlm")
    found = made.shared.text.family.positions(np.array([7, 7, 9]), np.array([0]), made.grids[0])
    assert found.tolist() == [0, 1, 2]


def test_a_plain_model_is_its_own_base(make):
    model = make("pair").model
    assert bare(model) is model
