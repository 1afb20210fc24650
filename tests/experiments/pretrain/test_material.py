"""What a pair is trained on shares nothing with what devices meet, and its card says so."""

import numpy as np
import pytest

from cdc_flower.config import parse
from cdc_flower.data import packs, splits
from experiments.pretrain import material as made
from experiments.pretrain.recipes import Recipe

CONFIG = {"data.scenes-train": 30, "data.scenes-test": 30, "data.known-objects": "old shapes"}


@pytest.fixture(params=["generated", "folder"])
def material(request, tmp_path):
    config = parse(CONFIG)
    if request.param == "folder":
        pack = packs.load(config.data)
        parts = [
            f.assign(image=[i[k] for k in f["image_id"]])
            for f, i in ((pack.train, pack.train_images), (pack.test, pack.test_images))
        ]
        packs.write_pack(tmp_path / "mine", *parts)
        config = parse({**CONFIG, "data.pack": str(tmp_path / "mine")})
    return made.material(config, Recipe(pictures=30))


def test_no_picture_is_in_two_parts_and_each_row_has_its_picture(material):
    taken = {}
    for name, part in material.parts.items():
        assert not part.source.empty
        assert [part.ids[row] for row in part.frame["image_row"]] == part.frame["image_id"].tolist()
        taken[name] = {part.images[i] for i in part.ids}
    assert list(taken) == list(splits.PARTS)
    assert sum(map(len, taken.values())) == len(set.union(*taken.values()))
    said = {name: (about["rows"], about["pictures"]) for name, about in material.split["parts"].items()}
    assert said == {name: (len(part.frame), len(part.ids)) for name, part in material.parts.items()}


def test_of_large_parts_a_sample_is_scored(material, monkeypatch):
    monkeypatch.setattr(made, "SCORED", 7)
    part = material.parts[splits.B]
    some = part.some()
    assert len(some.frame) == 7
    assert some.frame["image_row"].max() == len(some.ids) - 1
    assert np.array_equal(some.frame["question"], part.some().frame["question"])
