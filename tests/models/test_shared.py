"""What both sides need is in the student's checkpoint; nothing of the teacher's is opened for it."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from cdc_flower.models import shared as module
from cdc_flower.models import transform
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import PairError, weights_digest
from cdc_flower.models.shared import load_shared, tower_digest
from cdc_flower.stages import PairConfig


def bare(student, teacher="nowhere") -> PairConfig:
    return PairConfig(teacher=str(teacher), student=str(student))


def test_it_says_what_it_is(shared):
    assert (shared.n_tokens, shared.width, shared.name, shared.family) == (64, 64, "scenes", "llava")
    assert (shared.side, shared.patch) == (96, 12)
    assert shared.card["format"] == 1
    assert shared.text.decode(shared.text.answer_ids("Southeast")) == "southeast"


def test_no_file_of_the_teacher_is_opened(shared, pair_folder, tmp_path):
    folder = shutil.copytree(pair_folder, tmp_path / "pair", ignore=shutil.ignore_patterns("teacher"))
    assert load_shared(PairConfig(folder=str(folder)), "scenes").digest == shared.digest
    assert load_shared(bare(pair_folder / "student"), "x").tower_digest == shared.tower_digest


def test_the_tower_alone_is_that_of_the_whole_model(shared):
    whole = LlavaForConditionalGeneration.from_pretrained(shared.path, dtype=torch.float32)
    want = whole.model.vision_tower.state_dict()
    assert want.keys() == shared.tower.state_dict().keys()
    assert all(torch.equal(t, want[n]) for n, t in shared.tower.state_dict().items())
    assert tower_digest(whole.model.vision_tower, whole.config) == shared.tower_digest


def test_tokens_are_known_by_the_tower_and_what_pictures_are_prepared_by(shared, pair_folder, tmp_path):
    again = load_shared(bare(pair_folder / "student"), "x")
    assert again.tokens_digest == shared.tokens_digest != shared.tower_digest
    folder = shutil.copytree(pair_folder / "student", tmp_path / "student")
    file = folder / "preprocessor_config.json"
    written = {**shared.processor.to_dict(), **json.loads(file.read_text())}  # what was left out, too
    file.write_text(json.dumps(written, default=int))
    assert load_shared(bare(folder), "x").tokens_digest == shared.tokens_digest
    other = shutil.copytree(folder, tmp_path / "other")
    (other / file.name).write_text(json.dumps({**written, "image_mean": [0.9, 0.1, 0.5]}, default=int))
    found = load_shared(bare(other), "x")
    assert found.tower_digest == shared.tower_digest, "a teacher reads the student's tokens all the same"
    assert found.tokens_digest != shared.tokens_digest


def test_bare_checkpoints_have_no_card_and_no_transform(shared, pair_folder):
    found = load_shared(bare(pair_folder / "student"), "x")
    assert found.transform is None
    assert found.digest == weights_digest(pair_folder / "student")


def test_a_pair_brings_the_transform_of_its_tower_and_no_other(shared, pair_folder, tmp_path):
    assert shared.transform is not None
    folder = shutil.copytree(pair_folder, tmp_path / "pair")
    turn = transform.estimate(np.random.default_rng(0).standard_normal((9, 64, 64)))
    transform.save(turn, folder, shared.tower_digest)
    found = load_shared(PairConfig(folder=str(folder)), "scenes")
    assert found.transform is not None
    assert found.transform.digest == turn.digest
    assert found.digest != shared.digest, "--resume sees it"
    other = shutil.copytree(folder, tmp_path / "other")
    transform.save(turn, other, "another tower")
    assert load_shared(PairConfig(folder=str(other)), "scenes").transform is None


def test_another_architecture_is_refused_by_name(tmp_path):
    tiny = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=16
    )
    LlamaForCausalLM(tiny).save_pretrained(tmp_path)
    with pytest.raises(PairError, match="architecture 'llama'; allowed: llava, smolvlm, .*qwen2_5_vl"):
        load_shared(bare(tmp_path), "x")


def changed(made, tmp_path, **more):
    """A checkpoint with another config.json; its folder."""
    folder = shutil.copytree(made.shared.path, tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **more}))
    return folder


def refusal(folder):
    with pytest.raises(PairError) as told:
        load_shared(bare(folder), "x")
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    ("file", "what"), [("*processor_config.json", "picture processor"), ("tokenizer*", "tokenizer")]
)
def test_a_checkpoint_that_lacks_a_file_is_refused_in_a_line(made, tmp_path, file, what):
    folder = changed(made, tmp_path)
    for path in folder.glob(file):
        path.unlink()
    said = refusal(folder)  # transformers makes an empty tokenizer of some families where there is none
    assert said.startswith(f"student '{folder}'")
    assert f"no {what} that can be read" in said or (what == "tokenizer" and "no word with id" in said)


def test_a_tokenizer_without_the_word_of_a_picture_is_refused(made, tmp_path):
    words = len(made.shared.text.tokenizer)
    key = "image_token_index" if "image_token_index" in made.shared.config.to_dict() else "image_token_id"
    folder = changed(made, tmp_path, **{key: words})
    assert f"no word with id {words}, of a picture's tokens" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("chat_template.jinja", "{{ messages | nosuch }} {% for", "its chat template cannot be used"),
        (
            "chat_template.jinja",
            "{{ messages[0].content[0].a.b.c }}<image>",
            "its chat template cannot be used",
        ),
        ("chat_template.jinja", "{{ 1 // 0 }}", r"its chat template cannot be used \(.*zero"),
        ("chat_template.json", "{not json", "chat_template.json has no text 'chat_template'"),
        ("chat_template.json", "{}", "chat_template.json has no text 'chat_template'"),
        ("chat_template.json", '{"chat_template": [1]}', r"no text 'chat_template' \(list\)"),
    ],
)
def test_a_template_that_fails_is_said_in_a_line(pair_folder, tmp_path, file, content, message):
    folder = shutil.copytree(pair_folder / "student", tmp_path / "student")
    (folder / "chat_template.jinja").unlink()
    (folder / file).write_text(content)
    assert re.search(message, refusal(folder))


@pytest.mark.parametrize("end", [None, [], "DEL", "</s>"])
def test_a_checkpoint_without_an_end_is_refused(pair_folder, tmp_path, end):
    folder = shutil.copytree(pair_folder / "student", tmp_path / "student")
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    file = folder / "generation_config.json"
    file.unlink(missing_ok=True)
    if end != "DEL":
        file.write_text(json.dumps({"eos_token_id": end}))
    assert "has no end token" in refusal(folder)


def test_a_missing_shard_is_said_in_a_line(made, tmp_path):
    folder = changed(made, tmp_path)
    sorted(folder.glob("model-0000*"))[-1].unlink()
    assert f"student '{folder}': its weights cannot be read" in refusal(folder)


def test_a_tower_without_a_weight_is_refused(pair_folder, tmp_path):
    folder = shutil.copytree(pair_folder / "student", tmp_path / "student")
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in sorted(tensors) if "vision_tower" in n and "fc1.weight" in n)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PairError, match=r"its files lack 'model.vision_tower.*fc1.weight'"):
        load_shared(bare(folder), "x")


def test_one_tower_in_two_float_types_is_the_same_where_its_values_are(shared):
    config = shared.config
    tower = CLIPVisionModel(CLIPVisionConfig(**config.vision_config.to_dict()))
    with torch.no_grad():
        for p in tower.parameters():
            p.copy_(p.bfloat16().half())
    digest = tower_digest(tower, config)
    assert tower_digest(tower.bfloat16(), config) == digest
    assert tower_digest(tower.half(), config) == digest
    with torch.no_grad():
        next(tower.parameters()).view(-1)[0] += 2.0**-9  # more than bfloat16 holds beside 1
    assert tower_digest(tower.float(), config) != digest


def test_pictures_go_through_the_tower_in_parts_of_what_fits(shared, monkeypatch):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)) for _ in range(3)]
    together = shared.encode(images)
    calls = []
    hook = shared.tower.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(module, "MOST", 2 * module.picture_bytes(shared.config, shared.n_tokens))
    for (apart, lies), (tokens, grid) in zip(shared.encode(images), together, strict=True):
        assert lies == grid
        np.testing.assert_allclose(apart, tokens, atol=2e-3)
    hook.remove()
    assert len(calls) == 2


@pytest.mark.parametrize(("strategy", "clip", "siglip"), [("default", 64, None), ("full", 65, 64)])
def test_tokens_are_counted_with_a_class_token_where_the_tower_has_one(
    shared, pair_folder, tmp_path, strategy, clip, siglip
):
    raw = json.loads((pair_folder / "student" / "config.json").read_text())
    for kind, wanted in (("clip", clip), ("siglip", siglip)):
        folder = tmp_path / kind
        folder.mkdir()
        vision = raw["vision_config"]
        if kind == "siglip":
            names = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "intermediate_size")
            vision = SiglipVisionConfig(**{n: vision[n] for n in names}).to_dict()
        text = json.dumps({**raw, "vision_config": vision, "vision_feature_select_strategy": strategy})
        (folder / "config.json").write_text(text)
        if wanted is None:
            with pytest.raises(PairError, match="has no class token to drop"):
                module.checked_config(str(folder), "student")
        else:
            found = module.checked_config(str(folder), "student")
            assert FAMILIES["llava"].grid(found).n == wanted
