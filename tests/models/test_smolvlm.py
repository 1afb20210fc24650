"""Tiles: each picture has as many tokens as it has tiles, and the prompt says which tile is where."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import Idefics3Processor

from cdc_flower.data.features import Grid
from cdc_flower.models.smolvlm import SmolVLM, shuffled


@pytest.fixture
def smolvlm(make):
    return make("smolvlm")


def test_the_number_of_tokens_is_the_pictures_own(smolvlm):
    assert smolvlm.grids == [Grid(20, 4, 4), Grid(12, 2, 4), Grid(12, 4, 2)]


def test_the_prompt_is_that_of_the_processor(make):
    made = make("idefics3")  # SmolVLM's processor needs num2words, its prompt is the same
    text = made.shared.text
    processor = Idefics3Processor(made.shared.processor, text.tokenizer, image_seq_len=4)
    for image, grid, asked in zip(made.images, made.grids, made.asked, strict=True):
        prompt = text.prompt("where is the star?") if asked is made.asked[0] else None
        if prompt is None:
            continue
        theirs = processor(text=[prompt], images=[[image]], add_special_tokens=False)["input_ids"][0]
        assert [*text.prefix_ids(grid), *asked] == list(theirs)
        whole = text.family.image_words(text.config, grid, text.word)
        assert whole.count("<row_") == (grid.n // 4 - 1)


def test_one_tile_has_no_rows(smolvlm):
    text = smolvlm.shared.text
    words = text.family.image_words(text.config, SmolVLM().smallest(text.config), text.word)
    assert words == f"<fake_token_around_image><global-img>{'<image>' * 4}<fake_token_around_image>"


def test_shuffling_puts_neighbouring_patches_into_one_row():
    rows = torch.arange(16.0).view(1, 16, 1)
    assert shuffled(rows, 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


def test_a_grey_picture_keeps_its_tokens(smolvlm):
    ((tokens, grid),) = smolvlm.shared.encode([Image.new("RGB", (50, 50), "grey")])
    assert len(tokens) == grid.n == 20
