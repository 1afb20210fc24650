"""What is InternVL's own: tiles without words between them, a class token that goes, shuffled patches."""

from __future__ import annotations

import copy

import pytest
import torch

from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from cdc_flower.models.internvl import InternVL
from tests.models.test_families import pixels_and_ids


@pytest.fixture
def internvl(make):
    return make("internvl")


def test_the_number_of_tokens_is_that_of_the_tiles_and_the_whole(internvl):
    assert internvl.grids == [Grid(20, 4, 4), Grid(12, 2, 4), Grid(16, 6, 2)]
    assert internvl.shared.fits((4, 2, 2)), "one tile has no whole besides"
    for wrong in ((20, 2, 2), (24, 10, 2), (12, 3, 4), (0, 0, 0)):
        assert not internvl.shared.fits(wrong), wrong


@torch.no_grad()
def test_projected_tokens_are_those_of_the_class(internvl):
    for i, tokens in enumerate(internvl.tokens):
        pixels = pixels_and_ids(internvl, i)["pixel_values"]
        want = internvl.model.get_image_features(
            pixels, vision_feature_layer=-1, vision_feature_select_strategy="default"
        ).pooler_output
        got = internvl.shared.text.family.project(internvl.model, torch.from_numpy(tokens).float())
        torch.testing.assert_close(got, want.flatten(0, 1), atol=5e-3, rtol=1e-3)


def test_a_picture_stands_between_its_beginning_and_its_end(internvl):
    text = internvl.shared.text
    ids = [*text.prefix_ids(internvl.grids[1]), *internvl.asked[1]]
    words = text.tokenizer.convert_ids_to_tokens(ids)
    first = words.index("<img>")
    assert words[first : first + 14] == ["<img>", *["<IMG_CONTEXT>"] * 12, "</img>"]
    assert words[first + 14 :][:3] == ["\n", "is", "there"]


@torch.no_grad()
def test_another_layer_is_read_where_the_checkpoint_says_so(internvl):
    config, family = copy.deepcopy(internvl.shared.config), InternVL()
    config.vision_feature_layer = -2
    assert family.tower_key(config) != family.tower_key(internvl.shared.config)
    ((tokens, grid),) = family.encode(
        internvl.shared.tower, config, internvl.shared.processor, internvl.images[:1]
    )
    pixels = pixels_and_ids(internvl, 0)["pixel_values"]
    model = internvl.model
    want = model.get_image_features(
        pixels, vision_feature_layer=-2, vision_feature_select_strategy="default"
    ).pooler_output
    got = family.project(model, torch.from_numpy(tokens).float())
    torch.testing.assert_close(got, want.flatten(0, 1), atol=5e-3, rtol=1e-3)
    config.vision_feature_layer = [-2, -1]
    assert family.refusal(config) == "vision_feature_layer [-2, -1]; allowed: one layer"
    assert grid == internvl.grids[0]


def test_a_batch_holds_pictures_of_several_sizes(internvl):
    inputs = vlm.collate(internvl.shared.text, internvl.tokens, internvl.asked, grids=internvl.grids)
    assert (inputs.slots >= 0).sum(1).tolist() == [20, 12, 16]
