"""Pretraining learns what it says, can be stopped at any moment, and leaves ordinary checkpoints."""

import dataclasses
import io
import json

import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from cdc_flower.config import ConfigError, parse
from cdc_flower.data import packs
from cdc_flower.models.shared import load_shared
from cdc_flower.models.teacher import pair_digest
from cdc_flower.stages import PairConfig
from experiments.pretrain import language, optimise
from experiments.pretrain.pretrain import LanguageModel, Recipe, pretrain

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
        "data.scenes-train": 20,
        "data.scenes-test": 20,
        "data.known-objects": "old shapes",
        "data.known-questions": "what,colour,yesno,count",
    }
)


def test_an_interrupted_pretraining_gives_the_same_pair(tmp_path, monkeypatch):
    whole = pretrain(CONFIG, tmp_path / "whole", TINY)
    monkeypatch.setattr(optimise, "SAVE_SECONDS", -1.0)
    loss, calls = language.turns_loss, []

    def stopping(model, *arguments):
        if model.training:  # not for validation
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
        return loss(model, *arguments)

    monkeypatch.setattr(language, "turns_loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(CONFIG, tmp_path / "again", TINY)
    assert not (tmp_path / "again" / "pair.json").exists()
    said: list[str] = []
    again = pretrain(CONFIG, tmp_path / "again", TINY, None, said.append)
    ends = [line.rpartition("; ")[2] for line in said if line.startswith("stage ")]
    assert ends == [
        f"{TINY.tower_steps} steps, all of them done before",
        "4 steps, 2 of them done before",
        f"{TINY.student_steps} steps",
    ]
    assert len(calls) == 3 + (4 - 2) + 3  # the teacher's rest and the student; the tower was only loaded
    assert again["digest"] == whole["digest"]
    assert again["scores"] == whole["scores"]


def test_a_pair_for_clips_reads_frames_and_finds_captions(tmp_path):
    config = parse({"data.pack": "clips", "data.clips-users": 8, "data.clips-each": 2, "data.frames": 4})
    card = pretrain(config, tmp_path, dataclasses.replace(TINY, image_side=16, patch=8))
    shared = load_shared(PairConfig(folder=str(tmp_path)), "clips")
    assert (card["frames"], shared.frames, shared.grid) == (4, 4, (16, 8, 2))
    assert pair_digest(PairConfig(folder=str(tmp_path)), shared, "clips") == card["digest"]
    assert shared.head is not None
    assert float(shared.head.scale) != 2.5  # it was trained
    for part, found in card["scores"]["student"].items():
        assert "caption" not in found["by_qtype"], part
        assert set(found["retrieval"]) == {"text to clip", "clip to text"}
    assert "retrieval" not in card["scores"]["teacher"]["C"]


def test_the_checkpoints_are_ordinary_llava_checkpoints(pair_folder):
    models = {}
    for role in ("teacher", "student"):
        models[role], loaded = LlavaForConditionalGeneration.from_pretrained(
            pair_folder / role, output_loading_info=True
        )
        assert not any(loaded.values())  # nothing missing, unexpected or of another shape
    towers = [m.model.vision_tower.state_dict() for m in models.values()]
    assert towers[0].keys() == towers[1].keys()
    assert all(torch.equal(towers[0][k], towers[1][k]) for k in towers[0])
    card = json.loads((pair_folder / "pair.json").read_text())
    counted = card["parameters"]
    for role, model in models.items():
        assert sum(p.numel() for p in model.parameters()) == counted["tower"] + counted[role]


def picture_of(grey):
    picture = io.BytesIO()
    Image.new("RGB", (24, 24), (grey,) * 3).save(picture, "png")
    return picture.getvalue()


def small_pack(folder, questions):
    rows = pd.DataFrame({"question": [f"q{i}?" for i in range(questions)], "answer": "x", "user": "u"})
    rows = pd.concat(
        [
            rows.assign(image_id=f"{i}{n}", qtype=q, domain=d, image=picture_of(n + more))
            for n in range(15)
            for i, q, d, more in (("a", "old", "new", 0), ("b", "new", "old", 50))
        ]
    )
    packs.write_pack(folder, rows, rows.assign(image_id=rows["image_id"] + "test", image=picture_of(99)))


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
    packs.write_pack(tmp_path / "rare", frame.iloc[::2], frame.iloc[1::2].assign(image=picture_of(0)))
    with pytest.raises(ConfigError, match="pack 'rare' gives a vision tower nothing to learn; allowed:"):
        pretrain(parse({"data.pack": str(tmp_path / "rare")}), tmp_path / "pair", TINY)


def test_pictures_that_cannot_be_cut_into_patches_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="image side 30; allowed: a multiple of the patch, 12"):
        pretrain(CONFIG, tmp_path, dataclasses.replace(TINY, image_side=30))
