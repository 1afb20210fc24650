from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from cdc_flower.config import ConfigError, PairConfig
from cdc_flower.models import transform
from cdc_flower.models.pair import PairError, install, load_pair, weights_digest


def test_a_pair_says_what_it_is(pair):
    assert (pair.n_tokens, pair.width, pair.name) == (64, 64, "scenes")
    assert (pair.side, pair.patch) == (96, 12)
    assert pair.card["format"] == 1
    assert pair.text.decode(pair.text.answer_ids("Southeast")) == "southeast"


def test_two_bare_checkpoints_make_the_same_pair(pair, pair_folder):
    bare = load_pair(
        PairConfig(teacher=str(pair_folder / "teacher"), student=str(pair_folder / "student")), "x"
    )
    assert bare.tower_digest == pair.tower_digest
    assert bare.transform is None
    assert bare.digest == weights_digest(pair_folder / "teacher", pair_folder / "student")
    assert bare.text.suffix == "\n{question} ASSISTANT:"


def test_a_pair_brings_the_transform_of_its_tower_and_no_other(pair, pair_folder, tmp_path):
    assert pair.transform is not None
    folder = shutil.copytree(pair_folder, tmp_path / "pair")
    turn = transform.estimate(np.random.default_rng(0).standard_normal((9, 64, 64)))
    transform.save(turn, folder, pair.tower_digest)
    found = load_pair(PairConfig(pair=str(folder)), "scenes").transform
    assert found is not None
    assert found.digest == turn.digest
    assert load_pair(PairConfig(pair=str(folder)), "scenes").digest != pair.digest, "--resume sees it"
    other = shutil.copytree(folder, tmp_path / "other")
    transform.save(turn, other, "another tower")
    assert load_pair(PairConfig(pair=str(other)), "scenes").transform is None


def test_one_of_teacher_and_student_is_not_enough(pair_folder):
    with pytest.raises(PairError, match="go together"):
        load_pair(PairConfig(teacher=str(pair_folder / "teacher")), "x")


def test_towers_that_differ_are_refused(pair_folder, tmp_path):
    other = shutil.copytree(pair_folder / "student", tmp_path / "student")
    model = LlavaForConditionalGeneration.from_pretrained(other)
    with torch.no_grad():
        model.model.vision_tower.encoder.layers[0].mlp.fc1.weight.add_(0.01)
    model.save_pretrained(other)
    with pytest.raises(PairError, match="do not share one vision tower"):
        load_pair(PairConfig(teacher=str(pair_folder / "teacher"), student=str(other)), "x")


def test_tokenizers_that_differ_are_refused(pair_folder, tmp_path):
    other = shutil.copytree(pair_folder / "student", tmp_path / "student")
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["vocab"]["zebra"] = len(content["model"]["vocab"])
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PairError, match="do not share one tokenizer"):
        load_pair(PairConfig(teacher=str(pair_folder / "teacher"), student=str(other)), "x")


def test_another_architecture_is_refused_by_name(pair_folder, tmp_path):
    tiny = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=16
    )
    LlamaForCausalLM(tiny).save_pretrained(tmp_path)
    with pytest.raises(PairError, match="architecture 'llama'; allowed: llava"):
        load_pair(PairConfig(teacher=str(tmp_path), student=str(pair_folder / "student")), "x")


def test_no_weights_found_says_where_it_looked_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no weights found for 'nowhere'; looked in .*cdc-flower pretrain"):
        load_pair(PairConfig(), "nowhere")


def test_a_folder_that_is_no_pair_is_refused(tmp_path):
    with pytest.raises(PairError, match=r"no pair\.json"):
        load_pair(PairConfig(pair=str(tmp_path)), "x")


def test_weights_are_found_in_the_cache_where_the_package_has_only_the_card(
    monkeypatch, tmp_path, pair_folder
):
    import cdc_flower.models.pair as module

    package, bundle = tmp_path / "package", tmp_path / "bundle"
    shutil.copytree(pair_folder, package / "toy")
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "WEIGHTS", package)
    installed = install("toy")
    (bundle / "toy").mkdir(parents=True)
    shutil.copy(package / "toy" / "pair.json", bundle / "toy")
    monkeypatch.setattr(module, "WEIGHTS", bundle)
    assert module.find_pair(PairConfig(), "toy") == installed
