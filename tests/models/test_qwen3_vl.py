"""What is Qwen3-VL's own: middle layers of the tower that are read by first layers of the language model."""

from __future__ import annotations

import copy

import pytest
import torch

from cdc_flower.models import adapters, vlm
from cdc_flower.models.qwen3_vl import Qwen3VL
from cdc_flower.models.shared import tower_digest
from cdc_flower.models.student import twin_model
from cdc_flower.stages import PairConfig


@pytest.fixture
def qwen(make):
    return make("qwen3_vl")


def test_a_token_holds_its_patches_at_three_layers(qwen):
    assert qwen.shared.width == 3 * 4 * 16
    assert [grid.n for grid in qwen.grids] == [36, 32, 27]


@torch.no_grad()
def test_projected_tokens_are_what_the_class_places_and_adds(qwen):
    family = qwen.shared.text.family
    for image, tokens in zip(qwen.images, qwen.tokens, strict=True):
        given = qwen.shared.processor(images=[image], return_tensors="pt")
        want = qwen.model.get_image_features(given["pixel_values"], given["image_grid_thw"])
        rows = family.project(qwen.model, torch.from_numpy(tokens).float())
        got = family.encoded(qwen.model, rows)
        torch.testing.assert_close(got.pooler_output[0], want.pooler_output[0], atol=5e-3, rtol=1e-3)
        for ours, theirs in zip(got.deepstack_features, want.deepstack_features, strict=True):
            torch.testing.assert_close(ours[0], theirs[0], atol=5e-3, rtol=1e-3)


@torch.no_grad()
def test_middle_layers_change_the_answer(qwen):
    inputs = vlm.collate(qwen.shared.text, qwen.tokens, qwen.asked, grids=qwen.grids)
    before = vlm.forward(qwen.model, inputs).logits
    inputs.tokens[..., 64:] = 0
    assert not torch.allclose(vlm.forward(qwen.model, inputs).logits, before, atol=1e-3)


def test_the_adapter_trains_the_merger_of_the_last_layer(qwen):
    names = adapters.layout(twin_model(qwen.shared, PairConfig(lora_rank=2, compression="none"))).names
    assert any(".visual.merger." in name for name in names)
    assert not any("deepstack" in name for name in names)


def test_the_tower_has_no_weight_of_a_merger_and_its_layers_are_part_of_its_digest(qwen):
    assert not any("merger" in name for name in qwen.shared.tower.state_dict())
    other = copy.deepcopy(qwen.shared.config)
    other.vision_config.deepstack_visual_indexes = [0, 2]
    assert tower_digest(qwen.shared.tower, other) != qwen.shared.tower_digest
    assert Qwen3VL().width(other) == qwen.shared.width
