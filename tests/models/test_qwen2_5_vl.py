"""What is Qwen2.5-VL's own: sizes, windows, three axes of positions, the merger that is not in the tower."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.shared import tower_digest
from cdc_flower.models.student import twin_model
from cdc_flower.stages import PairConfig


@pytest.fixture
def qwen(make):
    return make("qwen2_5_vl")


def test_the_number_of_tokens_follows_the_size_within_the_processors_limits(qwen):
    assert qwen.grids == [Grid(36, 6, 6), Grid(32, 4, 8), Grid(27, 9, 3)]
    assert qwen.shared.fits((36, 6, 6))
    assert qwen.shared.fits((5, 1, 5))
    for wrong in ((37, 37, 1), (3, 1, 3), (36, 6, 5), (0, 0, 0)):
        assert not qwen.shared.fits(wrong), wrong
    family, processor = qwen.shared.text.family, qwen.shared.processor
    for size in ((1, 1), (3, 400), (1000, 999), (17, 23)):
        assert qwen.shared.fits(family.layout(qwen.shared.config, processor, size))


@torch.no_grad()
def test_projected_tokens_are_those_of_the_class_in_its_order(qwen):
    family = qwen.shared.text.family
    for image, tokens in zip(qwen.images, qwen.tokens, strict=True):
        given = qwen.shared.processor(images=[image], return_tensors="pt")
        want = qwen.model.get_image_features(given["pixel_values"], given["image_grid_thw"]).pooler_output[0]
        got = family.project(qwen.model, torch.from_numpy(tokens).float())
        torch.testing.assert_close(got, want, atol=5e-3, rtol=1e-3)


def test_positions_are_those_of_the_class(qwen):
    text = qwen.shared.text
    for grid, asked in zip(qwen.grids, qwen.asked, strict=True):
        ids = torch.tensor([[*text.prefix_ids(grid), *asked]])
        want, delta = qwen.model.model.get_rope_index(
            ids, (ids == text.image_id).int(), torch.tensor([[1, 2 * grid.rows, 2 * grid.cols]])
        )
        got = text.family.positions(ids[0].numpy(), text.prefix(grid).slots, grid)
        assert got.T.tolist() == want[:, 0].tolist()
        assert got[-1, 0] + 1 - len(ids[0]) == int(delta)


def test_absent_tokens_leave_their_places_on_all_axes(qwen):
    kept = np.array([0, 7, 35])
    inputs = vlm.collate(
        qwen.shared.text, [qwen.tokens[0][kept]], qwen.asked[:1], None, [kept], grids=qwen.grids[:1]
    )
    first = len(qwen.shared.text.prefix_ids(qwen.grids[0])) - 36
    places = inputs.at_tokens(inputs.position_ids)[0] - first
    assert places.tolist() == [[0, 0, 0], [0, 1, 1], [0, 5, 5]]
    assert inputs.position_ids[0, int(inputs.question[0])].tolist() == [first + 6] * 3


def test_the_tower_has_no_weight_of_the_merger_and_windows_are_part_of_its_digest(qwen):
    assert not any("merger" in name for name in qwen.shared.tower.state_dict())
    other = copy.deepcopy(qwen.shared.config)
    other.vision_config.window_size = 32
    assert tower_digest(qwen.shared.tower, other) != qwen.shared.tower_digest


@torch.no_grad()
def test_a_student_has_no_tower_and_is_whole_for_its_class_with_the_shared_one(qwen):
    twin = twin_model(qwen.shared, PairConfig(lora_rank=2, compression="none"))
    assert not hasattr(twin.get_base_model().model.visual, "blocks")
    FAMILIES["qwen2_5_vl"].give_tower(twin.get_base_model(), qwen.shared.tower)
    given = qwen.shared.processor(images=[qwen.images[0]], return_tensors="pt")
    features = [
        m.get_image_features(given["pixel_values"], given["image_grid_thw"]).pooler_output[0]
        for m in (twin.get_base_model(), qwen.model)
    ]
    torch.testing.assert_close(*features)
    assert twin.get_base_model().model.visual.blocks is qwen.shared.tower.blocks


def test_a_strip_that_is_too_long_is_refused_by_its_processor(qwen):
    with pytest.raises(ValueError, match="aspect ratio"):
        qwen.shared.encode([Image.new("RGB", (2, 500))])


def test_costs_are_those_of_a_square(qwen):
    from cdc_flower.fleet.cost import roofline

    found = roofline.shapes(qwen.shared.student_config(), 2)
    assert found.layers == 2
    assert found.patches == 32 * 32
    assert found.tower > sum(p.numel() for p in qwen.shared.tower.blocks.parameters()) // 2
