"""What a teacher has that is not the student's: tower, processor, prompt, words."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from cdc_flower.models import vlm
from cdc_flower.models.folders import PairError, weights_digest
from cdc_flower.models.shared import load_shared
from cdc_flower.models.teacher import has_tower, load_teacher, pair_digest, teacher_config, unlike
from cdc_flower.session import session
from cdc_flower.stages import PairConfig


def teacher_of(pair_folder, student, teacher=None):
    config = PairConfig(teacher=str(teacher or pair_folder / "teacher"), student=str(student))
    return load_teacher(config, load_shared(config, "x"), "x")


def test_its_digest_is_that_of_the_pair(shared, teacher, config, pair_folder):
    assert teacher.digest == pair_digest(config.pair, shared, "scenes") == shared.card["digest"]
    assert teacher.digest == weights_digest(
        pair_folder / "teacher", pair_folder / "student", turn=shared.transform
    ), "of the weights alone, which results that are kept name"


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_bare_checkpoints_are_known_by_what_prepares_their_pictures_too(pair_folder, tmp_path, role):
    for name in ("teacher", "student"):
        shutil.copytree(pair_folder / name, tmp_path / name)
    config = PairConfig(teacher=str(tmp_path / "teacher"), student=str(tmp_path / "student"))
    found = pair_digest(config, load_shared(config, "x"), "x")
    again = PairConfig(teacher=str(pair_folder / "teacher"), student=str(pair_folder / "student"))
    assert pair_digest(again, load_shared(again, "x"), "x") == found
    file = tmp_path / role / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "image_mean": [0.9, 0.1, 0.5]}))
    session().close()
    assert pair_digest(config, load_shared(config, "x"), "x") != found


def test_its_configuration_is_read_without_its_weights(teacher, config):
    found = teacher_config(config.pair, "scenes")
    assert found["text_config"]["hidden_size"] == teacher.model.config.text_config.hidden_size


def test_a_teacher_with_another_tower_has_it_and_reads_no_tokens_of_the_student(pair_folder, tmp_path):
    other = shutil.copytree(pair_folder / "student", tmp_path / "student")
    model = LlavaForConditionalGeneration.from_pretrained(other)
    with torch.no_grad():
        model.model.vision_tower.encoder.layers[0].mlp.fc1.weight.add_(0.01)
    model.save_pretrained(other)
    found = teacher_of(pair_folder, other, pair_folder / "student")
    assert (found.tokens, found.words) == (False, True)
    student = load_shared(PairConfig(teacher="nowhere", student=str(pair_folder / "student")), "x")
    assert found.own.tower_digest == student.tower_digest
    config = PairConfig(teacher=str(pair_folder / "student"), student=str(other))
    assert not has_tower(config, load_shared(config, "x"), "x")
    assert unlike(config, "x").tower == ""  # of one shape


def test_a_teacher_that_writes_its_own_prompts_is_refused_without_a_template(pair_folder, tmp_path):
    other = shutil.copytree(pair_folder / "teacher", tmp_path / "teacher")
    (other / "chat_template.jinja").unlink()
    config = PairConfig(teacher=str(other), student=str(pair_folder / "student"))
    assert unlike(config, "x").words == ""
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["vocab"]["zebra"] = len(content["model"]["vocab"])
    (other / "tokenizer.json").write_text(json.dumps(content))
    session().close()
    with pytest.raises(PairError, match=f"teacher '{other}' has no chat template"):
        unlike(config, "x")


def test_a_teacher_with_another_tokenizer_reads_the_students_tokens_in_its_own_prompt(pair_folder, tmp_path):
    other = shutil.copytree(pair_folder / "student", tmp_path / "student")
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["vocab"]["zebra"] = len(content["model"]["vocab"])
    (other / "tokenizer.json").write_text(json.dumps(content))
    config = PairConfig(teacher=str(pair_folder / "student"), student=str(other))
    shared = load_shared(config, "x")
    found = load_teacher(config, shared, "x")
    assert (found.tokens, found.words) == (True, False)
    assert found.own.tower is shared.tower
    assert "zebra" not in found.own.text.tokenizer.get_vocab()
    assert " against " in unlike(config, "x").words


@torch.no_grad()
def test_a_teacher_with_more_rows_of_logits_speaks_of_the_students_ids_alone(
    shared, teacher, pair_folder, tmp_path
):
    model = LlavaForConditionalGeneration.from_pretrained(pair_folder / "teacher", dtype=torch.float32)
    model.resize_token_embeddings(shared.vocab + 16, mean_resizing=False)
    folder = shutil.copytree(pair_folder / "teacher", tmp_path / "teacher")
    model.save_pretrained(folder)
    found = teacher_of(pair_folder, pair_folder / "student", folder)
    tokens = np.random.default_rng(0).normal(size=(2, shared.n_tokens, shared.width))
    inputs = vlm.collate(shared.text, tokens, [[5], [6, 7]])
    wide, plain = (vlm.forward(t.model, inputs).logits for t in (found, teacher))
    assert wide.shape[-1] == shared.vocab
    torch.testing.assert_close(wide, plain)


def test_another_id_of_a_picture_is_refused(pair_folder, tmp_path):
    other = shutil.copytree(pair_folder / "student", tmp_path / "teacher")
    text = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**text, "image_token_index": 5}))
    with pytest.raises(PairError, match="teacher .* its chat template writes .* 0 times"):
        teacher_of(pair_folder, pair_folder / "student", other)
