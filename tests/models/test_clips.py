"""The laws of `test_families` for clips: three frames, each a picture of one prompt of the class's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from cdc_flower.models.families import FAMILIES
from cdc_flower.models.folders import PairError
from cdc_flower.models.shared import card_frames, load_shared
from cdc_flower.stages import PairConfig
from tests import tiny
from tests.models.conftest import QUESTIONS
from tests.models.test_families import TYPES

FRAMES = 3
ABLE = sorted(name for name in tiny.BUILDERS if name != "llava_onevision")
SOME = [n if n in ("llava", "qwen2_5_vl") else pytest.param(n, marks=pytest.mark.slow) for n in ABLE]
"""Names of checkpoints; the default tier has one of rising positions and one of three axes."""


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


class Clips:
    """Two clips for the checkpoint of a name, and what the class's own processor makes of one."""

    def __init__(self, made, path):
        self.made, self.model = made, made.model
        self.shared = load_shared(PairConfig(teacher="nowhere", student=path), "x", FRAMES)
        self.text, rng = self.shared.text, np.random.default_rng(2)
        self.clips = [
            [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(FRAMES)]
            for size in ((64, 64), (40, 80))
        ]
        self.tokens, self.grids = [], []
        for clip in self.clips:
            tokens, grids = zip(*self.shared.encode(clip), strict=True)
            self.tokens.append(np.concatenate(tokens))
            self.grids.append(grids[0].of_clip(FRAMES))
        self.asked = [self.text.question_ids(q) for q in QUESTIONS[:2]]

    def batch(self, **more):
        return vlm.collate(self.text, self.tokens, self.asked, grids=self.grids, **more)

    def of_class(self, i):
        """What the class is given for a clip: pixels of several pictures, and one prompt."""
        family = self.shared.family
        more = {"crop_to_patches": True} if family == "internvl" else {}
        clip = self.clips[i] if family not in ("smolvlm", "idefics3") else [self.clips[i]]
        found = self.shared.processor(images=clip, return_tensors="pt", **more)
        ids = torch.tensor([[*self.text.prefix_ids(self.grids[i]), *self.asked[i]]])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if family in TYPES:
            name, of = TYPES[family]
            given[name] = of(ids == self.text.image_id)
        known = "pixel_values", "pixel_attention_mask", "image_grid_thw"
        return given | {k: v for k, v in found.items() if k in known}


@pytest.fixture(params=SOME)
def made_clips(request, make, tiny_folders):
    return Clips(make(request.param), str(tiny_folders[request.param]))


def test_logits_are_those_of_the_class_with_several_pictures_in_one_prompt(made_clips):
    c = made_clips
    ours = vlm.forward(c.model, c.batch()).logits[:, -1]
    for i in range(len(c.clips)):
        theirs = c.model(**c.of_class(i)).logits[0, -1]
        bound = max(5e-3, 2e-3 * float(theirs.abs().max()))  # tokens are float16 here
        torch.testing.assert_close(ours[i], theirs, atol=bound, rtol=1e-3)
    swapped = [np.concatenate(np.split(t, FRAMES)[::-1]) for t in c.tokens]
    turned = vlm.forward(c.model, vlm.collate(c.text, swapped, c.asked, grids=c.grids)).logits[:, -1]
    assert float((turned - ours).abs().max()) > 10 * 5e-3 or c.shared.family == "paligemma", "order counts"


def test_anchor_frames_are_the_whole_clip_with_the_others_masked(made_clips):
    c = made_clips
    kept = [np.r_[0 : g.n // FRAMES, 2 * g.n // FRAMES : g.n] for g in c.grids]  # the middle one is absent
    some = [t[k] for t, k in zip(c.tokens, kept, strict=True)]
    sparse, whole = vlm.collate(c.text, some, c.asked, None, kept, grids=c.grids), c.batch()
    for row, k in zip(whole.positions, kept, strict=True):
        row[~torch.isin(row, torch.from_numpy(k))] = -1
    absent, masked = vlm.forward(c.model, sparse), vlm.forward(c.model, whole)
    assert absent.hidden.shape[1] < masked.hidden.shape[1]
    torch.testing.assert_close(absent.logits, masked.logits, atol=1e-5, rtol=1e-5)


def test_answers_are_those_of_generate(made_clips):
    c = made_clips
    ours = vlm.answer(c.model, c.text, c.batch(), 5).ids
    for i, ids in enumerate(ours):
        given = c.of_class(i)
        theirs = c.model.generate(**given, max_new_tokens=5, do_sample=False)
        theirs = theirs[0, given["input_ids"].shape[1] :].tolist()
        ends = [j for j, t in enumerate(theirs) if t in c.text.ends]
        assert ids == (theirs[: ends[0]] if ends else theirs)


def test_a_clip_has_the_grid_of_its_frames_one_below_the_other(made_clips):
    c = made_clips
    family = FAMILIES[c.shared.family]
    assert (c.shared.frames, c.text.pictures) == (FRAMES, FRAMES)
    assert c.shared.n_tokens == FRAMES * family.smallest(c.shared.config).n == c.shared.grid[0]
    for grid, tokens in zip(c.grids, c.tokens, strict=True):
        assert grid.n == len(tokens)
        assert c.shared.fits(grid)
        assert not c.shared.fits(grid._replace(rows=grid.rows + 1))
        assert len(c.text.prefix(grid).slots) == grid.n
    assert c.text.question_of(c.asked[0]).replace(" ?", "?") == QUESTIONS[0]


def test_a_family_that_reads_several_pictures_in_another_way_is_refused(tiny_folders):
    config = PairConfig(teacher="nowhere", student=str(tiny_folders["llava_onevision"]))
    with pytest.raises(PairError, match="a 'llava_onevision' reads no clips; allowed: llava, ") as told:
        load_shared(config, "x", FRAMES)
    assert "\n" not in str(told.value)
    assert load_shared(config, "x", 1).frames == 1  # a clip of one frame is a picture
    assert {FAMILIES[name].several for name in FAMILIES} == {True, False}


def test_the_card_says_how_many_frames_a_pair_reads(clip_shared):
    assert clip_shared.frames == 3
    assert clip_shared.grid == Grid(12, 6, 2)
    assert card_frames({}) == 0
    for bad in (-1, 65, "8", 2.0, True):
        with pytest.raises(PairError, match="frames = .*; allowed: a whole number up to 64"):
            card_frames({"frames": bad})
