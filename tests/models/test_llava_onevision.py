"""What is LLaVA-OneVision's own: tiles without borders, line ends that are no tokens, smaller pictures."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from cdc_flower.models.llava_onevision import LlavaOnevision


@pytest.fixture
def onevision(make):
    return make("llava_onevision")


def many(config, side=6, most=4):
    """The configuration of a checkpoint with more sizes of pictures than the class takes as they are."""
    found = copy.deepcopy(config)
    found.image_grid_pinpoints = [[16 * h, 16 * w] for h in range(1, side) for w in range(1, side)]
    found.vision_aspect_ratio = f"anyres_max_{most}"
    return found


def test_the_whole_picture_comes_before_tiles_without_borders(onevision):
    assert onevision.grids == [Grid(80, 8, 8), Grid(48, 4, 8), Grid(48, 8, 4)]
    assert onevision.shared.fits((16 + 8 * 6, 8, 6))
    for wrong in ((80, 8, 10), (72, 7, 8), (16, 0, 8), (79, 8, 8), (64, 8, 8)):
        assert not onevision.shared.fits(wrong), wrong


@torch.no_grad()
def test_projected_tokens_with_line_ends_are_those_of_the_class(onevision):
    family = onevision.shared.text.family
    for image, tokens, grid in zip(onevision.images, onevision.tokens, onevision.grids, strict=True):
        given = onevision.shared.processor(images=[image], return_tensors="pt")
        want = onevision.model.get_image_features(
            given["pixel_values"],
            given["image_sizes"],
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            vision_aspect_ratio="anyres_max_9",
        ).pooler_output[0]
        got = family.filler(onevision.model).repeat(len(want), 1)
        got[family.slots(np.arange(len(want)), grid)] = family.project(
            onevision.model, torch.from_numpy(tokens).float()
        )
        torch.testing.assert_close(got, want, atol=5e-3, rtol=1e-3)


def test_line_ends_are_never_absent(onevision):
    text, kept = onevision.shared.text, np.array([0, 20])
    inputs = vlm.collate(
        text, [onevision.tokens[0][kept]], onevision.asked[:1], None, [kept], grids=onevision.grids[:1]
    )
    assert (inputs.ids[0] == text.image_id).sum() == 2 + 8
    first = text.prefix_ids(onevision.grids[0]).index(text.image_id)
    places = inputs.position_ids[0][inputs.ids[0] == text.image_id] - first
    assert places.tolist() == [0, 20, *(16 + 9 * row + 8 for row in range(8))]


@torch.no_grad()
def test_without_any_token_line_ends_are_still_line_ends(onevision):
    text, none = onevision.shared.text, np.zeros(0, np.int64)
    sparse = vlm.collate(
        text, [onevision.tokens[0][:0]], onevision.asked[:1], None, [none], grids=onevision.grids[:1]
    )
    whole = vlm.collate(text, onevision.tokens[:1], onevision.asked[:1], grids=onevision.grids[:1])
    whole.positions[:] = -1
    absent, masked = vlm.forward(onevision.model, sparse), vlm.forward(onevision.model, whole)
    torch.testing.assert_close(absent.logits, masked.logits, atol=1e-5, rtol=1e-5)


def test_a_picture_of_very_many_tiles_is_made_smaller(onevision):
    config, family = many(onevision.shared.config), LlavaOnevision()
    processor = copy.deepcopy(onevision.shared.processor)
    processor.image_grid_pinpoints = config.image_grid_pinpoints
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 78, 3), dtype=np.uint8))
    ((tokens, grid),) = family.encode(onevision.shared.tower, config, processor, [image])
    assert grid == family.layout(config, processor, (75, 78))
    assert len(tokens) == grid.n
    assert family.fits(config, processor, grid)
    assert 4 * 16 / 2 < grid.rows * grid.cols <= 1.1**2 * 4 * 16
    small = image.resize((30, 30))
    ((_, smaller),) = family.encode(onevision.shared.tower, config, processor, [small])
    assert smaller == Grid(16 + 64, 8, 8), "smaller pictures are read as they are"


def test_sizes_that_are_all_too_large_are_refused(onevision):
    config = many(onevision.shared.config)
    assert LlavaOnevision().refusal(config) == ""
    config.image_grid_pinpoints = [[48, 48]]
    assert LlavaOnevision().refusal(config) == "image_grid_pinpoints of 9 tiles at least; allowed: up to 4"


def test_words_are_tied_where_the_text_configuration_says_so(onevision):
    head, words = onevision.model.lm_head.weight, onevision.model.get_input_embeddings().weight
    assert head.data_ptr() == words.data_ptr()
