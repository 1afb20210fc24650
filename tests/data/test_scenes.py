"""Claims about the generated data. Answers are checked by an interpreter of its own, which reads nothing but
the question and the boxes in the column `attributes`."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from cdc_flower.data import scenes
from cdc_flower.data.packs import Pack

ROWS = {
    "train": "b1789c753424d1ac402f05b197f33e84800760bf7e3c2dfe638395bb0eabf13c",
    "test": "7bd6d2641985e87e3ff106a0a8195bb1ea9b998115286cf278cbd3870b91234e",
}
PIXELS = {
    "train": "7878bae6d9e08b82c9b3d5304eba5e48d3ce47c7c74cb181c0b27d07e9a38691",
    "test": "14a094ea330a9d6a4c04a35ac8bd41057f3b5a3fc5fd2a3d932ff3fd82d3960a",
}


@pytest.fixture(scope="module")
def pack() -> Pack:
    return scenes.generate(400, 150, seed=3)


def rows_digest(frame) -> str:
    lines = ["\x1f".join(frame.columns), *("\x1f".join(row) for row in frame.itertuples(index=False))]
    return hashlib.sha256("\x1e".join(lines).encode()).hexdigest()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def pixels_digest(images) -> str:
    digest = hashlib.sha256()
    for image_id, data in images.items():
        digest.update(image_id.encode())
        digest.update(pixels(data).tobytes())
    return digest.hexdigest()


def things_of(attributes: str) -> list[dict[str, object]]:
    """The objects of a picture: three names share a box; its middle is where the object is."""
    by_box = defaultdict(list)
    for part in attributes.split(";"):
        name, box = part.split("@")
        by_box[tuple(float(v) for v in box.split(","))].append(name)
    return [
        {"shape": shape, "colour": colour, "cell": cell, "x": (x0 + x1) / 2, "y": (y0 + y1) / 2}
        for (x0, y0, x1, y1), (shape, colour, cell) in by_box.items()
    ]


def true_answer(question: str, attributes: str) -> str:
    """Look the answer up; fails where the question has no single answer."""
    things = things_of(attributes)

    def only(key: str, value: str) -> dict:
        (thing,) = (t for t in things if t[key] == value)
        return thing

    if found := re.fullmatch(r"what is in the (\w+)\?", question):
        return only("cell", found[1])["shape"]
    if found := re.fullmatch(r"what is (\w+)\?", question):
        return only("colour", found[1])["shape"]
    if found := re.fullmatch(r"what colour is the (\w+)\?", question):
        return only("shape", found[1])["colour"]
    if found := re.fullmatch(r"where is the (\w+)\?", question):
        return only("shape", found[1])["cell"]
    if found := re.fullmatch(r"is there a (\w+) (\w+)\?", question):
        return "yes" if any((t["colour"], t["shape"]) == found.groups() for t in things) else "no"
    if found := re.fullmatch(r"how many things are (\w+)\?", question):
        return str(sum(t["colour"] == found[1] for t in things))
    if found := re.fullmatch(r"how often is there a (\w+)\?", question):
        return str(sum(t["shape"] == found[1] for t in things))
    found = re.fullmatch(r"which is further (west|north), the (\w+) or the (\w+)\?", question)
    assert found, question
    axis = "x" if found[1] == "west" else "y"
    return min((only("shape", found[2]), only("shape", found[3])), key=lambda t: t[axis])["shape"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_generator_still_makes_the_pictures_and_rows_that_the_default_pair_was_trained_on(split):
    """Golden digests; of pixels, not PNG bytes, so that another zlib changes nothing.

    A change on purpose takes a new number in the digest of `generate` and new values here.
    """
    small = scenes.generate(50, 20)
    assert rows_digest(getattr(small, split)) == ROWS[split]
    assert pixels_digest(getattr(small, f"{split}_images")) == PIXELS[split]


def test_the_same_arguments_give_the_same_bytes_and_another_seed_other_pictures():
    first, again, other = (scenes.generate.__wrapped__(6, 3, seed) for seed in (1, 1, 2))
    assert first.train.equals(again.train)
    assert first.test.equals(again.test)
    assert first.train_images == again.train_images
    assert first.digest == again.digest
    assert not set(first.train_images.values()) & set(other.train_images.values())
    assert first.digest != other.digest


def test_a_larger_pack_begins_with_the_smaller_one():
    small, large = scenes.generate.__wrapped__(4, 2, 1), scenes.generate.__wrapped__(8, 2, 1)
    assert large.train.head(len(small.train)).equals(small.train)
    assert dict(small.train_images).items() <= dict(large.train_images).items()
    assert small.digest != large.digest


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_answer_is_true_of_the_picture(pack, split):
    frame = getattr(pack, split)
    rows = zip(frame["question"], frame["answer"], frame["attributes"], strict=True)
    wrong = [(question, answer) for question, answer, boxes in rows if true_answer(question, boxes) != answer]
    assert not wrong


def test_the_interpreter_that_checks_answers_can_say_no(pack):
    """Answers moved to the row of another picture are mostly false or refused: the check above has teeth."""
    frame = pack.train[pack.train["qtype"] == "count"]
    moved = frame["attributes"].to_numpy()[::-1]
    held = [
        true_answer(q, boxes) == a
        for q, a, boxes in zip(frame["question"], frame["answer"], moved, strict=True)
    ]
    assert np.mean(held) < 0.6


def test_all_kinds_of_questions_are_asked_in_both_splits(pack):
    for frame in (pack.train, pack.test):
        shares = frame["qtype"].value_counts(normalize=True)
        assert set(shares.index) == {"what", "colour", "where", "yesno", "count", "compare"}
        assert shares.min() > 0.02


def test_yes_and_no_are_balanced(pack):
    answers = Counter(pack.train.loc[pack.train["qtype"] == "yesno", "answer"])
    assert set(answers) == {"yes", "no"}
    n = sum(answers.values())
    assert abs(answers["yes"] - n / 2) < 3 * np.sqrt(n / 4)


def test_a_no_is_about_something_near_never_about_nothing_in_the_picture(pack):
    denied = pack.train[(pack.train["qtype"] == "yesno") & (pack.train["answer"] == "no")]
    for question, boxes in zip(denied["question"], denied["attributes"], strict=True):
        colour, shape = re.fullmatch(r"is there a (\w+) (\w+)\?", question).groups()
        assert any(colour == t["colour"] or shape == t["shape"] for t in things_of(boxes))


def test_train_and_test_share_no_picture(pack):
    assert not set(pack.train_images.values()) & set(pack.test_images.values())
    assert not set(pack.train_images) & set(pack.test_images)
    assert not set(pack.train["attributes"]) & set(pack.test["attributes"])


def test_new_shapes_occur_only_in_pictures_of_new_shapes(pack):
    for frame in (pack.train, pack.test):
        assert set(frame["concept"]) == {"old shapes", "new shapes"}
        old = frame[frame["concept"] == "old shapes"]
        for column in ("question", "answer", "attributes"):
            assert not old[column].str.contains("|".join(scenes.NEW_SHAPES)).any()


def test_what_is_asked_in_pictures_of_new_shapes_is_about_a_new_shape_or_a_count_of_a_colour(pack):
    asked = pack.train[(pack.train["concept"] == "new shapes") & (pack.train["qtype"] != "yesno")]
    said = asked["question"] + " " + asked["answer"]
    about_new = said.str.contains("|".join(scenes.NEW_SHAPES))
    assert about_new[asked["qtype"] != "count"].all()
    assert asked.loc[~about_new, "question"].str.fullmatch(r"how many things are \w+\?").all()


def test_nearly_every_picture_of_new_shapes_shows_one(pack):
    pictures = pack.train[pack.train["concept"] == "new shapes"].drop_duplicates("image_id")
    assert pictures["attributes"].str.contains("|".join(scenes.NEW_SHAPES)).mean() > 0.95


def test_half_of_the_pictures_show_new_shapes_in_every_style(pack):
    pictures = pack.train.drop_duplicates("image_id")
    assert abs((pictures["concept"] == "new shapes").mean() - 0.5) < 0.02
    assert set(pictures["domain"]) == set(scenes.STYLES)
    assert set(pictures.loc[pictures["concept"] == "new shapes", "domain"]) == set(scenes.STYLES)


def test_pictures_hold_three_to_five_things_in_cells_of_their_own(pack):
    for boxes in set(pack.train["attributes"]):
        things = things_of(boxes)
        assert 3 <= len(things) <= 5
        assert len({t["cell"] for t in things}) == len(things)
        for t in things:
            column, row = int(t["x"] * 3), int(t["y"] * 3)
            assert scenes.CELLS[3 * row + column] == t["cell"]


def test_a_box_encloses_pixels_of_the_colour_it_names(pack):
    """In the flat style: the pixel nearest to the named colour, inside the box, is that colour."""
    flat = pack.train[pack.train["domain"] == "flat"].drop_duplicates("image_id").head(20)
    for image_id, boxes in zip(flat["image_id"], flat["attributes"], strict=True):
        picture = pixels(pack.train_images[image_id]).astype(float)
        assert picture.shape == (scenes.SIDE, scenes.SIDE, 3)
        names = [part.split("@") for part in boxes.split(";")]
        for colour, box in ((n, b) for n, b in names if n in scenes.COLOURS):
            x0, y0, x1, y1 = (round(float(v) * scenes.SIDE) for v in box.split(","))
            inside = picture[y0:y1, x0:x1].reshape(-1, 3)
            distance = np.abs(inside - scenes.COLOURS[colour]).max(1)
            assert distance.min() <= 1.5
            assert (distance < 12).mean() > 0.1
