"""A, B and C share no picture and no value of the column they are split by; a card says which is which."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cdc_flower.config import ConfigError, parse
from cdc_flower.data import packs, splits
from cdc_flower.data.splits import Split, divide, parts_of, rows_of

DATA = parse({}).data


def frame(values, first=0, pictures_of=lambda i: i):
    return pd.DataFrame(
        {
            "image_id": [f"p{first + pictures_of(i)}" for i in range(len(values))],
            "question": [f"q{i}?" for i in range(len(values))],
            "answer": "x",
            "user": list(values),
        }
    )


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 30), min_size=12, max_size=60),
    st.lists(st.integers(0, 60), max_size=20),
    st.integers(1, 4),
    st.sampled_from(["user", "image_id"]),
)
def test_parts_share_no_value_and_no_picture(values, tested, a_picture, column):
    train = frame(values, pictures_of=lambda i: i // a_picture)
    test = frame(tested, 1000)
    try:
        parts = divide(train, test, Split(column))
    except ConfigError:
        return
    masks = parts.trained, parts.validation, parts.met
    assert (np.sum(masks, axis=0) <= 1).all()
    for name in (column, "image_id"):
        trained, validation, met = (set(train[name][mask]) for mask in masks)
        assert not trained & validation
        assert not (trained | validation) & (met | set(test[name]))


def test_about_half_of_the_values_are_a_and_a_tenth_of_these_are_for_validation():
    parts = divide(frame(range(1000)), frame(range(2000, 2010), 5000), Split("user"))
    assert [int(m.sum()) for m in (parts.trained, parts.validation, parts.met)] == [450, 50, 500]


def test_the_order_of_rows_does_not_decide_and_values_of_the_test_split_are_not_in_a():
    train, test = frame(range(100)), frame(range(50), 5000)
    turned = train.iloc[::-1].reset_index(drop=True)
    one, two = divide(train, test, Split("user")), divide(turned, test, Split("user"))
    assert set(train["user"][one.trained]) == set(turned["user"][two.trained])
    assert train["user"][one.trained].min() >= 50


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("user", "'user': no row is left to train on; the column has 1 values"),
        ("hue", "'hue': the data has no"),
    ],
)
def test_what_cannot_be_split_is_refused_in_a_line(column, message):
    with pytest.raises(ConfigError, match=message) as refused:
        divide(frame([1] * 9), frame([2], 99), Split(column))
    assert "allowed: picture" in str(refused.value)
    assert "\n" not in str(refused.value)


def pack_of(tmp_path, greys, tested=(200, 201)):
    def rows(values, first):
        made = frame(values, first).assign(qtype="what", domain="d")
        return made.assign(image=[png(v) for v in values], user=[f"u{v}" for v in values])

    packs.write_pack(tmp_path / "mine", rows(greys, 0), rows(tested, 500))
    return packs.read_pack(tmp_path / "mine")


def png(grey):
    stream = io.BytesIO()
    Image.new("L", (4, 4), grey).save(stream, "PNG")
    return stream.getvalue()


def test_the_same_picture_under_another_name_is_in_no_part(tmp_path):
    pack = pack_of(tmp_path, [*range(50), *range(10)], tested=[30, 200])
    parts = divide(pack.train, pack.test, Split())
    found = splits.twins(pack, parts)
    assert found
    parts = divide(pack.train, pack.test, Split(twins=found))
    greys = [set(pack.train["user"][m]) for m in (parts.trained, parts.validation, parts.met)]
    assert not greys[0] & greys[1]
    assert not (greys[0] | greys[1]) & (greys[2] | set(pack.test["user"]))


@pytest.fixture
def pack(tmp_path):
    return pack_of(tmp_path, range(60))


def card_of(pack, split):
    frames = rows_of(pack, divide(pack.train, pack.test, split))
    return {"name": pack.name, "data": pack.digest, "split": splits.record(split, frames)}


def test_a_run_has_the_split_that_the_card_records(pack):
    card = card_of(pack, Split("user", 0.3, 0.2))
    made, own = parts_of(card, pack, DATA), divide(pack.train, pack.test, Split("user", 0.3, 0.2))
    assert (made.trained == own.trained).all()
    assert (made.met == own.met).all()
    assert {n: (p["rows"], p["values"]) for n, p in card["split"]["parts"].items()} == {
        "A": (14, 14),
        "A-validation": (4, 4),
        "B": (42, 42),
        "C": (2, 2),
    }
    with pytest.raises(ConfigError, match="'data.split-by' = 'picture': .* split by 'user'; allowed: that"):
        parts_of(card, pack, replace(DATA, split_by="picture"))


def test_of_bare_checkpoints_and_pairs_of_other_data_a_fifth_is_set_aside(pack):
    for card in ({}, {"name": "other", "data": "00", "split": {}}, {"format": 1}):
        parts = parts_of(card, pack, DATA)
        assert int((parts.trained | parts.validation).sum()) == 12
        assert parts.validation.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": None}, "the teacher learnt from what devices stream; allowed: another pair"),
        ({"data": "0" * 64}, "are not those that its pair was trained on"),
    ],
)
def test_a_pair_that_may_have_learnt_from_what_devices_stream_is_refused(pack, change, message):
    with pytest.raises(ConfigError, match=message):
        parts_of({**card_of(pack, Split()), **change}, pack, DATA)


def test_a_card_that_records_other_rows_is_refused(pack):
    card = card_of(pack, Split())
    card["split"]["parts"]["B"]["digest"] = "0"
    with pytest.raises(ConfigError, match="part B of its split has other rows"):
        parts_of(card, pack, DATA)


def test_a_picture_of_the_devices_that_is_reported_on_is_in_no_part(pack):
    whole = divide(pack.train, pack.test, Split())
    met = pack.train.loc[whole.met, "image_id"].iloc[0]
    shown = str(pack.test["image_id"].iloc[0])
    again = replace(pack, train_images={**pack.train_images, met: pack.test_images[shown]})
    assert splits.twins(again, whole) == (met,)
    parts = divide(again.train, again.test, Split(twins=(met,)))
    assert met not in set(again.train.loc[parts.met, "image_id"])
    assert parts.met.sum() < whole.met.sum()


def clips_of(tmp_path) -> packs.Pack:
    """Eight users with seven clips each; one clip is another of its user played backwards."""
    shades = [bytes([shade]) for shade in range(200)]

    def rows(first, users):
        names = [(f"c{first + 7 * u + i}", f"u{first + u}") for u in range(users) for i in range(7)]
        frame = pd.DataFrame({"image_id": [n for n, _ in names], "user": [u for _, u in names]})
        frame = frame.assign(question="q?", answer="a", qtype="k", domain="")
        return frame, {name: (shades[i], shades[i + 1]) for i, name in enumerate(frame["image_id"])}

    (train, images), (test, other) = rows(0, 8), rows(500, 2)
    return packs.Pack("clips", None, "d", train, test, images, other, clips=True)


def test_of_clips_split_by_user_c_is_a_third_of_each_users_own(tmp_path):
    pack = clips_of(tmp_path)
    split = splits.wished(replace(DATA, split_by="user"), pack)
    assert split.own
    parts = divide(pack.train, pack.test, split)
    assert parts.held is not None
    assert parts.tuned is not None
    assert not (parts.held & (parts.met | parts.trained | parts.validation)).any()
    whose = pack.train["user"]
    assert set(whose[parts.held]) == set(whose[parts.met]) == set(whose[parts.tuned])
    assert set(whose[parts.held].value_counts()) == {2}, "of seven"
    assert set(whose[parts.met].value_counts()) == {5}
    assert not set(whose[parts.held]) & set(whose[parts.trained | parts.validation])
    assert rows_of(pack, parts)[splits.C]["image_id"].tolist() == pack.train["image_id"][parts.held].tolist()
    back = splits.recorded({"split": splits.record(split, rows_of(pack, parts))})
    assert back == split


def test_a_clip_played_backwards_is_the_same_pictures(tmp_path):
    pack = clips_of(tmp_path)
    parts = divide(pack.train, pack.test, Split("user", own=True))
    met, held = (pack.train["image_id"][mask].iloc[0] for mask in (parts.met, parts.held))
    again = replace(pack, train_images={**pack.train_images, met: pack.train_images[held][::-1]})
    assert splits.twins(again, parts) == (met,)


@pytest.mark.parametrize(("by", "clips"), [("user", False), ("picture", True)])
def test_c_is_the_test_split_of_pictures_and_of_clips_split_otherwise(tmp_path, by, clips):
    pack = replace(clips_of(tmp_path), clips=clips)
    assert not splits.wished(replace(DATA, split_by=by), pack).own
