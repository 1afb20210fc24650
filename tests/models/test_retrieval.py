"""A clip is known by the last id of its picture, a sentence by its last, both under the present adapter."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from cdc_flower.config import ConfigError
from cdc_flower.models import adapters, retrieval, vlm
from cdc_flower.models.shared import load_shared
from cdc_flower.models.student import device_model, twin_model
from cdc_flower.models.teacher import pair_digest
from cdc_flower.stages import PairConfig
from tests.models.test_clips import Clips

SAID = ["the red ring goes left", "the star stays", "the red ring goes up and the star stays"]


@pytest.fixture
def head():
    torch.manual_seed(0)
    return retrieval.Head(64).requires_grad_(False)


@pytest.fixture
def config(clip_pair_folder):
    return PairConfig(folder=str(clip_pair_folder), lora_rank=4)


@pytest.fixture
def tokens(clip_shared):
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, clip_shared.n_tokens, clip_shared.width)).astype(np.float16)


def test_vectors_are_of_the_last_states_and_of_length_one(clip_shared, config, head, tokens):
    model, text = twin_model(clip_shared, config), clip_shared.text
    clips = retrieval.clip_vectors(model, text, head, tokens)
    inputs = vlm.collate(text, tokens, [text.question_ids("what moves?")] * 3)  # what follows does not count
    with torch.no_grad():
        states = vlm.forward(model, inputs).hidden[:, len(text.prefix_ids()) - 1]
        np.testing.assert_allclose(clips, head.of_clips(states).numpy(), atol=1e-5)
        ids = torch.tensor([text.sentence_ids(SAID[1])])
        states = model.get_base_model().model(input_ids=ids).last_hidden_state[:, -1]
        found = retrieval.text_vectors(model, text, head, SAID, clip_shared.width)
        np.testing.assert_allclose(found[1:2], head.of_texts(states).numpy(), atol=1e-5)
    for vectors in (clips, found):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len({tuple(np.round(v, 3)) for v in (*clips, *found)}) == 6


@pytest.mark.parametrize("compression", ["nf4", "none"])
def test_an_adapter_moves_the_vectors_of_the_compressed_student_too(
    clip_shared, config, head, tokens, compression
):
    model = device_model(clip_shared, dataclasses.replace(config, compression=compression))
    before = adapters.read(model)

    def both():
        text, width = clip_shared.text, clip_shared.width
        clips = retrieval.clip_vectors(model, text, head, tokens)
        return clips, retrieval.text_vectors(model, text, head, SAID, width)

    first = both()
    adapters.write(model, (before + np.random.default_rng(0).normal(0, 0.1, len(before))).astype(np.float32))
    second = both()
    adapters.write(model, before)
    for old, new, again in zip(first, second, both(), strict=True):
        assert np.abs(old - new).max() > 0.01
        assert np.array_equal(old, again)


def test_clips_and_sentences_are_taken_in_batches_of_any_size(clip_shared, config, head, tokens, monkeypatch):
    model, text = twin_model(clip_shared, config), clip_shared.text
    whole = retrieval.text_vectors(model, text, head, SAID, clip_shared.width)
    seen = retrieval.clip_vectors(model, text, head, tokens, [clip_shared.grid] * 3)
    monkeypatch.setattr(retrieval, "BATCH", 2)
    np.testing.assert_allclose(
        retrieval.text_vectors(model, text, head, SAID, clip_shared.width), whole, atol=1e-5
    )
    np.testing.assert_allclose(retrieval.clip_vectors(model, text, head, tokens), seen, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl", "paligemma", "gemma3"])
def test_a_sentence_alone_has_the_positions_that_the_class_gives_it(name, make, tiny_folders):
    c = Clips(make(name), str(tiny_folders[name]))
    ids = torch.tensor([c.text.sentence_ids("red star answer")])
    with torch.no_grad():
        more = {"token_type_ids": torch.zeros_like(ids)} if name != "qwen2_5_vl" else {}
        states = c.model.model(input_ids=ids, attention_mask=torch.ones_like(ids), **more).last_hidden_state
        found = retrieval.said(c.model, c.text, ["red star answer", "red"], c.shared.width)
    torch.testing.assert_close(found[0], states[0, -1], atol=1e-4, rtol=1e-3)


def test_the_contrast_is_the_mean_of_two_cross_entropies_with_equal_texts_all_right(head):
    rng = torch.Generator().manual_seed(1)
    clips, texts = (torch.nn.functional.normalize(torch.randn(4, 64, generator=rng), dim=1) for _ in "ab")
    same = torch.eye(4, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    logits, losses = float(head.scale.exp()) * clips @ texts.T, []
    for table in (logits, logits.T):
        for i in range(4):
            chances = [float(p) for p in table[i].softmax(0)]
            right = [j for j in range(4) if same[i, j]]
            losses.append(-sum(np.log(chances[j]) for j in right) / len(right))
    found = retrieval.contrast(head, clips, texts, same)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-4)
    perfect = torch.eye(64)[:4]
    assert float(retrieval.contrast(head, perfect, perfect, torch.eye(4).bool())) < 1e-3 * float(found) + 0.01


def test_a_head_is_part_of_the_pair_and_of_its_digest(clip_pair_folder, clip_shared, head, tmp_path):
    assert clip_shared.head is None
    folder = shutil.copytree(clip_pair_folder, tmp_path / "pair")
    retrieval.save(head, folder)
    config = PairConfig(folder=str(folder))
    found = load_shared(config, "clips")
    assert torch.equal(found.head.clip.weight, head.clip.weight)
    assert found.digest != clip_shared.digest
    assert pair_digest(config, found, "clips") != pair_digest(config, clip_shared, "clips")


@pytest.mark.parametrize("damage", ["cut", "width", "infinite"])
def test_a_damaged_head_is_refused_in_one_line(head, tmp_path, damage):
    if damage == "infinite":
        head.scale.fill_(torch.inf)
    retrieval.save(head, tmp_path)
    path = tmp_path / retrieval.FILE
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"retrieval\.safetensors") as told:
        retrieval.load(tmp_path, 32 if damage == "width" else 64)
    assert "\n" not in str(told.value)
    assert retrieval.load(tmp_path / "nowhere", 64) is None
    assert retrieval.load(None, 64) is None
