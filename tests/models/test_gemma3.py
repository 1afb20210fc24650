"""What is Gemma 3's own: averaged patches, marks around a picture, tokens that see each other, windows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Gemma3ForConditionalGeneration, Gemma3Processor

from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from tests.models.test_families import pixels_and_ids


@pytest.fixture
def gemma(make):
    return make("gemma3")


def test_every_picture_is_one_square_of_averages(gemma):
    assert gemma.grids == [Grid(4, 2, 2)] * 3
    assert gemma.shared.fits((4, 2, 2))
    assert not gemma.shared.fits((4, 4, 1))


@torch.no_grad()
def test_projected_tokens_are_those_of_the_class(gemma):
    given = gemma.shared.processor(images=gemma.images, return_tensors="pt")["pixel_values"]
    want = gemma.model.get_image_features(given).pooler_output
    got = gemma.shared.text.family.project(gemma.model, torch.from_numpy(np.stack(gemma.tokens)).float())
    torch.testing.assert_close(got, want, atol=5e-3, rtol=1e-3)


def test_the_prompt_is_that_of_the_processor(gemma):
    marks = {"boi": "<start_of_image>", "eoi": "<end_of_image>", "image": "<image_soft_token>"}
    extra = {f"{name}_token": word for name, word in marks.items()}
    tokenizer = AutoTokenizer.from_pretrained(gemma.shared.path, extra_special_tokens=extra)
    processor = Gemma3Processor(gemma.shared.processor, tokenizer, image_seq_length=4)
    text = gemma.shared.text
    made = processor(
        text=[text.prompt("where is the star?")], images=[[gemma.images[0]]], add_special_tokens=False
    )
    ids = made["input_ids"][0]
    assert [*text.prefix_ids(gemma.grids[0]), *gemma.asked[0]] == list(ids)
    inputs = vlm.collate(text, gemma.tokens[:1], gemma.asked[:1])
    assert text.family.arguments(inputs)["token_type_ids"][0].tolist() == list(made["token_type_ids"][0])


@torch.no_grad()
def test_tokens_of_a_picture_see_those_behind_them(gemma):
    inputs = vlm.collate(gemma.shared.text, gemma.tokens[:1], gemma.asked[:1])
    first = int(inputs.slots[0, 0])
    before = vlm.forward(gemma.model, inputs).hidden[0]
    inputs.tokens[0, -1] += 1
    after = vlm.forward(gemma.model, inputs).hidden[0]
    assert torch.equal(before[:first], after[:first])
    assert not torch.allclose(before[first], after[first])


@torch.no_grad()
def test_a_window_that_is_shorter_than_the_prompt_is_the_classs(gemma, tmp_path):
    folder = shutil.copytree(gemma.shared.path, tmp_path / "gemma")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["sliding_window"] = 6
    (folder / "config.json").write_text(json.dumps(config))
    model = Gemma3ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    inputs = vlm.collate(gemma.shared.text, gemma.tokens, gemma.asked)
    logits, wide = (vlm.forward(m, inputs).logits[:, -1] for m in (model, gemma.model))
    assert not torch.allclose(logits, wide, atol=1e-2)
    for i in range(3):
        given = pixels_and_ids(gemma, i)
        torch.testing.assert_close(logits[i], model(**given).logits[0, -1], atol=5e-3, rtol=1e-3)
        alone = vlm.collate(gemma.shared.text, gemma.tokens[i : i + 1], gemma.asked[i : i + 1])  # no padding
        ours = vlm.answer(model, gemma.shared.text, alone, 6).ids[0]
        out = model.generate(**given, max_new_tokens=6, do_sample=False)
        theirs = out[0, given["input_ids"].shape[1] :].tolist()
        assert ours == [t for t in theirs if t not in gemma.shared.text.ends]


def test_the_end_that_is_taught_is_the_one_that_the_template_writes(gemma):
    text = gemma.shared.text
    assert [text.word(i) for i in text.ends] == ["<end_of_turn>", "<eos>"]
    config = json.loads((Path(gemma.shared.path) / "generation_config.json").read_text())
    assert config["eos_token_id"] == list(reversed(text.ends))
