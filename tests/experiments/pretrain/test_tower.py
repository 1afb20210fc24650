"""What the tower learns: regions by name where there are boxes, pictures by their questions where not."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.pretrain import tower
from experiments.pretrain.recipes import Recipe


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


def test_captions_lists_measures_and_constant_columns_are_no_classes(monkeypatch):
    monkeypatch.setattr(tower, "MOST", 2)
    frame = pd.DataFrame(
        {
            "image_id": ["a", "b", "c"],
            "question": "describe",
            "answer": ["a cat", "a dog", "an owl"],
            "answers": [["a cat"], ["a dog"], ["an owl"]],
            "task": "captions",
            "kind": ["fur", "fur", "feather"],
            "fps": np.array([0.77, 0.77, 5.28], np.float32),  # as text another number than as float32
        }
    )
    assert tower.targets(frame, ["a", "b", "c"], 2, min_count=2).names == ["kind=feather", "kind=fur"]
    few = tower.targets(frame, ["a", "b", "c"], 2, min_count=1).names  # such as versions of a standard
    assert few[:2] == ["fps=0.77", "fps=5.28"]


def test_a_clip_has_regions_in_each_of_its_frames_and_tokens_frame_by_frame():
    listed = "a@0,0,0.5,0.5|a@0.5,0.5,1,1;b@0,0,1,0.5|a@0,0.5,0.5,1"
    frame = pd.DataFrame({"image_id": ["x"], "question": ["?"], "answer": ["!"], "attributes": [listed]})
    goal = tower.targets(frame, ["x"], 2, frames=2)  # of three frames the first and the last are read
    assert goal.names == ["a"]
    assert goal.pool.tolist() == [[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0]]
    every = tower.targets(frame, ["x"], 2, frames=3)
    assert every.names == ["a", "b"]
    assert every.pool[2].tolist() == [0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0, 0, 0]
    asked = frame.drop(columns="attributes").loc[[0] * 4].assign(answer=["!", "?", "!", "?"])
    whole = tower.targets(asked, ["x"], 2, min_count=2, frames=2)
    assert whole.pool.tolist() == [[1 / 8] * 8]  # without attributes the mean over all frames
    read = tower.CLIPVisionModel(tower._vision_config(Recipe(image_side=8, patch=4, tower_width=16)))
    clips = torch.randn(2, 3, 3, 8, 8)
    with torch.no_grad():
        both, last = tower.tokens_of(read, clips), tower.tokens_of(read, clips[:, 2:])
    assert both.shape == (2, 12, 16)
    torch.testing.assert_close(both[:, 8:], last)
