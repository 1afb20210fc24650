"""Pretraining learns what it says, can be stopped at any moment, and leaves ordinary checkpoints."""

import dataclasses
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import LlavaForConditionalGeneration

from cdc_flower.config import ConfigError, parse
from cdc_flower.data import packs
from cdc_flower.models import vlm
from experiments.pretrain import language, optimise, tower
from experiments.pretrain.pretrain import LanguageModel, Recipe, pretrain
from experiments.pretrain.recipes import shortened

SMALL = LanguageModel(64, 1, 64)
TINY = Recipe(
    pictures=40,
    image_side=24,
    tower_width=32,
    tower_layers=1,
    tower_steps=3,
    tower_batch=8,
    teacher=SMALL,
    teacher_steps=4,
    student=SMALL,
    student_steps=3,
    batch=4,
    turns=3,
)
CONFIG = parse(
    {
        "data.scenes-test": 20,
        "data.known-objects": "old shapes",
        "data.known-questions": "what,colour,yesno,count",
    }
)


# --- targets of the tower


def test_boxes_pool_the_patches_they_cover():
    quarter = tower._box_pool((0.0, 0.0, 0.5, 0.5), 4).reshape(4, 4)
    assert quarter.sum() == pytest.approx(1)
    assert (quarter[:2, :2] == 0.25).all()
    wide = tower._box_pool((0.5, 0.25, 1.0, 0.375), 4).reshape(4, 4)  # half of two patches
    assert wide[1, 2] == wide[1, 3] == 0.5
    assert wide.sum() == pytest.approx(1)
    across = tower._box_pool((0.125, 0.0, 0.5, 0.25), 4)  # half of the first patch, all of the second
    assert across[:2].tolist() == pytest.approx([1 / 3, 2 / 3])


def test_with_boxes_each_region_is_judged_by_every_name():
    frame = pd.DataFrame(
        {
            "image_id": ["b", "b", "a"],
            "question": "q",
            "answer": "x",
            "attributes": ["red@0,0,0.5,1;disc@0,0,0.5,1;star@0.5,0,1,1"] * 2 + ["red@0,0,1,1"],
        }
    )
    goal = tower.targets(frame, ["a", "b"], 2)
    assert goal.names == ["disc", "red", "star"]
    assert goal.known.all()
    found = {
        (int(i), tuple(p)): [n for n, y in zip(goal.names, row, strict=True) if y]
        for i, p, row in zip(goal.image, goal.pool, goal.label, strict=True)
    }
    assert found == {
        (1, (0.5, 0, 0.5, 0)): ["disc", "red"],
        (1, (0, 0.5, 0, 0.5)): ["star"],
        (0, (0.25, 0.25, 0.25, 0.25)): ["red"],
    }


def test_without_boxes_a_picture_is_judged_by_what_was_asked_and_by_its_classes():
    frame = pd.DataFrame(
        {
            "image_id": ["a", "a", "b", "b"],
            "question": ["what?", "dark?", "what?", "rare?"],
            "answer": ["cat", "no", "dog", "odd"],
            "qtype": "t",
            "domain": "d",
            "user": "u",
            "group": ["pets", "pets", "wild", "wild"],
            "view": [1, 2, 1, 2],
        }
    )  # `view` differs within a picture
    goal = tower.targets(frame, ["a", "b"], 2, min_count=2)
    assert goal.names == ["group=pets", "group=wild", "what?=cat", "what?=dog"]
    assert goal.image.tolist() == [0, 1]
    assert (goal.pool == 0.25).all()
    assert goal.label.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    assert goal.known.all()
    more = tower.targets(pd.concat([frame, frame.iloc[1:2]]), ["a", "b"], 2, min_count=2)
    assert more.known[:, more.names.index("dark?=no")].tolist() == [True, False]


# --- questions in one sequence


@torch.no_grad()
def test_questions_of_one_picture_do_not_see_each_other(shared, teacher):
    rng = np.random.default_rng(0)
    asked = [
        [
            ("what colour is the disc?", "red"),
            ("how many stars are there?", "three"),
            ("where is the star?", "top left"),
        ],
        [("is there a disc?", "yes")],
    ]
    turns = [
        [(shared.text.question_ids(q), shared.text.answer_ids(a)) for q, a in picture] for picture in asked
    ]
    kept = [np.array([0, 5, 9, 40]), np.arange(shared.n_tokens)]
    tokens = [rng.normal(size=(len(k), shared.width)).astype(np.float32) for k in kept]
    together = language.turns_loss(
        teacher.model, shared.text, language.collate_turns(shared.text, tokens, kept, turns), 0.0
    )
    alone = []
    for picture, t, k in zip(turns, tokens, kept, strict=True):
        for question, answer in picture:
            inputs = vlm.collate(shared.text, [t], [question], [answer], [k])
            logits = vlm.forward(teacher.model, shared.text, inputs).logits[0]
            alone.append(nn.functional.cross_entropy(logits, inputs.answer_ids[0], reduction="none"))
    torch.testing.assert_close(together, torch.cat(alone).mean(), atol=1e-5, rtol=1e-5)


# --- stopping and going on


class Model(nn.Module):
    """A matrix of a block, for Muon, and one that is not, for AdamW."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lm = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(8, 8)])})
        self.head = nn.Linear(8, 1)
        self.steps = []

    def train_on(self, folder, steps=6, stop=None, fingerprint="f"):
        def loss_of(step):
            if step == stop:
                raise KeyboardInterrupt
            self.steps.append(step)
            x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
            return (self.head(torch.tanh(self.lm["layers"][0](x))) - x.sum(1, keepdim=True)).square().mean()

        optimise.optimise("stage", self, loss_of, steps, 1e-2, TINY, folder, fingerprint, None)

    @property
    def bits(self):
        return {k: v.clone() for k, v in self.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_an_interrupted_stage_ends_with_the_same_bits(tmp_path, monkeypatch):
    whole, first, second = Model(), Model(), Model()
    whole.train_on(tmp_path)
    monkeypatch.setattr(optimise, "SAVE_SECONDS", -1.0)  # save after every step
    (tmp_path / "again").mkdir()
    with pytest.raises(KeyboardInterrupt):
        first.train_on(tmp_path / "again", stop=4)
    second.train_on(tmp_path / "again")
    assert second.steps == [4, 5]
    assert same(second.bits, whole.bits)


def test_a_finished_stage_is_only_loaded(tmp_path):
    first, second = Model(), Model()
    first.train_on(tmp_path)
    with torch.no_grad():
        second.head.weight.zero_()
    second.train_on(tmp_path)
    assert second.steps == []
    assert same(second.bits, first.bits)


def test_a_stage_of_another_fingerprint_starts_afresh(tmp_path):
    first, second = Model(), Model()
    first.train_on(tmp_path)
    second.train_on(tmp_path, fingerprint="g")
    assert second.steps == [0, 1, 2, 3, 4, 5]


def test_an_interrupted_pretraining_gives_the_same_pair(tmp_path, monkeypatch):
    whole = pretrain(CONFIG, tmp_path / "whole", TINY)
    monkeypatch.setattr(optimise, "SAVE_SECONDS", -1.0)
    loss, calls = language.turns_loss, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(language, "turns_loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(CONFIG, tmp_path / "again", TINY)
    assert not (tmp_path / "again" / "pair.json").exists()
    again = pretrain(CONFIG, tmp_path / "again", TINY)
    assert len(calls) == 3 + (4 - 2) + 3  # the teacher's rest and the student; the tower was only loaded
    assert again["digest"] == whole["digest"]
    assert again["scores"] == whole["scores"]


# --- what comes out


def test_the_tokenizer_knows_every_word_in_lower_case_and_no_question_mark():
    frame = pd.DataFrame({"question": ["What Colour, is it?", "is it?"], "answer": ["Dark Red", "no"]})
    made = language.make_tokenizer(frame)
    special = {"<pad>", "<s>", "</s>", "<unk>", "<image>"}
    assert set(made.get_vocab()) - special == {"what", "colour", ",", "is", "it", "dark", "red", "no"}
    ids = made("WHAT colour, is it?", add_special_tokens=False)["input_ids"]
    assert made.convert_ids_to_tokens(ids) == ["what", "colour", ",", "is", "it"]


def test_the_checkpoints_are_ordinary_llava_checkpoints(pair_folder):
    models = {}
    for role in ("teacher", "student"):
        models[role], loaded = LlavaForConditionalGeneration.from_pretrained(
            pair_folder / role, output_loading_info=True
        )
        assert not any(loaded.values())  # nothing missing, unexpected or of another shape
    towers = [m.model.vision_tower.state_dict() for m in models.values()]
    assert same(*towers)
    card = json.loads((pair_folder / "pair.json").read_text())
    counted = card["parameters"]
    for role, model in models.items():
        assert sum(p.numel() for p in model.parameters()) == counted["tower"] + counted[role]


def small_pack(folder, questions):
    picture = io.BytesIO()
    Image.new("RGB", (24, 24)).save(picture, "png")
    rows = pd.DataFrame(
        {
            "image": picture.getvalue(),
            "question": [f"q{i}?" for i in range(questions)],
            "answer": "x",
            "user": "u",
        }
    )
    rows = pd.concat(
        [rows.assign(image_id=i, qtype=q, domain=d) for i, q, d in (("a", "old", "new"), ("b", "new", "old"))]
        * 15
    )
    packs.write_pack(folder, rows, rows.assign(image_id=rows["image_id"] + "test"))


def test_a_pack_without_source_samples_is_refused(tmp_path):
    small_pack(tmp_path / "pack", questions=1)
    config = parse(
        {
            "data.pack": str(tmp_path / "pack"),
            "data.known-questions": "old",
            "data.known-objects": "old",
            "data.object-column": "domain",
        }
    )
    with pytest.raises(ConfigError, match="no training sample is of the source domain"):
        pretrain(config, tmp_path / "pair", dataclasses.replace(TINY, tower_steps=0))


def test_a_pack_that_teaches_a_tower_nothing_is_refused(tmp_path):
    small_pack(tmp_path / "pack", questions=1)
    frame = pd.read_parquet(tmp_path / "pack" / "train.parquet")
    packs.write_pack(tmp_path / "rare", frame.iloc[:20], frame.iloc[20:].assign(image_id="test"))
    with pytest.raises(ConfigError, match="pack 'rare' gives a vision tower nothing to learn; allowed:"):
        pretrain(parse({"data.pack": str(tmp_path / "rare")}), tmp_path / "pair", TINY)


def test_pictures_that_cannot_be_cut_into_patches_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="image side 30; allowed: a multiple of the patch, 12"):
        pretrain(CONFIG, tmp_path, dataclasses.replace(TINY, image_side=30))


def test_a_share_of_the_steps_is_at_least_one_of_each_stage():
    short = shortened(TINY, 0.5)
    assert (short.tower_steps, short.teacher_steps, short.student_steps) == (2, 2, 2)
    assert shortened(TINY, 1e-6) == dataclasses.replace(TINY, tower_steps=1, teacher_steps=1, student_steps=1)
    assert shortened(TINY, 1.0) == TINY
