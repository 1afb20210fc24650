"""The world of clips: no device is asked for a caption, and each is judged by its own users' items."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cdc_flower.config import ConfigError, parse
from cdc_flower.data import clips, world
from cdc_flower.data.clip_things import FRAMES
from cdc_flower.data.features import Grid
from cdc_flower.data.packs import CAPTION, write_pack
from cdc_flower.data.world import LIVED, TUNED, load_world
from cdc_flower.session import session
from tests.conftest import full


@dataclass(frozen=True)
class FakePair:
    name: str = "fake"
    tokens_digest: str = "0123456789abcdef"
    card: dict[str, Any] = field(default_factory=lambda: {"format": 1, "name": "other"})
    frames: int = 2


@pytest.fixture(autouse=True)
def tower(monkeypatch, tmp_path):
    """A frame has two tokens: its mean."""

    def encode(shared, images):
        return [(np.full((2, 3), np.asarray(image).mean(), np.float32), Grid(2, 1, 2)) for image in images]

    monkeypatch.setattr(world, "_encode", encode)
    monkeypatch.setenv("CDC_FLOWER_CACHE", str(tmp_path / "cache"))
    session().close()


SMALL = {
    "data_pack": "clips",
    "clips_users": 16,
    "clips_each": 6,
    "partition": "natural",
    "known_styles": "day,night",
    "devices": 4,
    "rounds": 2,
    "samples_per_round": 4,
}


def config(**more: object):
    return parse(full({**SMALL, **more}))


def test_every_device_has_one_user_and_is_judged_by_the_users_own_items():
    made = load_world(config(), FakePair())
    assert made.owners is not None
    seen = []
    for device in range(4):
        (user,) = set(made.train["user"].iloc[np.concatenate(made.streams[device])])
        own = made.test.iloc[made.own(device)]
        assert set(own["user"]) == {user}
        assert len(own) == (made.test["user"] == user).sum() > 0
        seen.append((user, *set(own["familiar"])))
    assert sorted(seen) == [
        ("user0014", "seen"),
        ("user0015", "seen"),
        ("user0016", "unseen"),
        ("user0017", "unseen"),
    ]
    assert set(made.test["drift_domain"]) == {"source", "style"}


def test_captions_are_asked_of_nobody_and_kept_with_their_clips():
    made = load_world(config(), FakePair())
    for rows in (made.train, made.test):
        assert CAPTION not in set(rows["qtype"])
    assert set(made.captions["qtype"]) == {CAPTION}
    assert len(made.captions) == made.captions["image_id"].nunique() == 12
    assert set(made.test["image_id"]) <= set(made.captions["image_id"])
    first = made.captions.iloc[0]
    whole = clips.generate(16, 6, LIVED).test_images
    assert list(whole)[first["image_row"]] == first["image_id"]


def test_the_tokens_of_a_clip_are_of_evenly_spread_frames():
    made = load_world(config(), FakePair())
    assert made.train_tokens.grid(0) == Grid(4, 2, 2)
    assert load_world(config(), FakePair(frames=FRAMES)).train_tokens.grid(0) == Grid(2 * FRAMES, FRAMES, 2)


def test_settings_are_chosen_by_other_clips_of_the_same_users():
    made = load_world(config(items="tuning"), FakePair())
    assert made.tested[0].digest == clips.generate(16, 6, TUNED).digest
    assert all(len(made.own(device)) for device in range(4))


def test_all_items_are_everybodys_where_that_is_set_or_users_are_mixed():
    for more in ({"tested": "all"}, {"partition": "iid"}):
        made = load_world(config(**more), FakePair())
        assert made.owners is None
        assert made.own(3).tolist() == list(range(len(made.test)))


def test_the_limit_of_items_is_of_each_user():
    made = load_world(config(items_per_domain=1), FakePair())
    assert made.test.groupby(["user", "drift_domain"]).size().max() == 1
    assert all(len(made.own(device)) for device in range(4))


@pytest.mark.parametrize(
    ("pair", "settings", "message"),
    [
        (
            {"frames": 0},
            {},
            "'data.pack': pack 'clips' has clips, and pair 'fake' reads pictures; allowed: a pair",
        ),
        (
            {},
            {"data_pack": "scenes", "scenes_train": 2, "scenes_test": 2, "known_styles": "flat"},
            "has pictures, and",
        ),
        ({}, {"data_frames": 3}, "'data.frames' = 3: pair 'fake' reads 2; allowed: 0"),
        ({"frames": 0, "card": {}}, {}, "'data.frames' = 0: pack 'clips' has clips.*allowed: 1 to 64"),
        ({}, {"uplink_unit": "jpeg"}, "'uplink.unit' = 'jpeg': of a clip, tokens go up; allowed: 'tokens'"),
        ({}, {"partition_by": "shoe", "tested": "own", "partition": "iid"}, "the data has no column 'shoe'"),
    ],
    ids=["pictures' pair", "clips' pair", "frames", "bare", "unit", "column"],
)
def test_what_does_not_fit_clips_is_refused_in_one_line(pair, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_world(config(**settings), replace(FakePair(), **pair))
    assert "\n" not in str(caught.value)


def test_of_a_folder_split_by_user_c_is_of_the_devices_users(tmp_path):
    made = clips.generate(12, 4, 0)

    def rows(frame: pd.DataFrame, images) -> pd.DataFrame:
        frame = frame.rename(columns={"image_id": "clip_id"}).drop(columns="attributes")
        return frame.assign(frames=[list(images[name]) for name in frame["clip_id"]])

    write_pack(tmp_path / "film", rows(made.train, made.train_images), rows(made.test[:12], made.test_images))
    own = config(data_pack=str(tmp_path / "film"), split_by="user", known_styles="", drift_axes="none")
    found = load_world(own, FakePair())
    assert found.tested == (found.pack, "train")
    assert not set(found.test["image_id"]) & set(found.train["image_id"])
    assert set(found.test["user"]) == set(found.train["user"])
    assert not set(found.test["user"]) & set(found.aside["user"])
    assert all(len(found.own(device)) for device in range(4))
