"""What the rows of a clip pack must be; those of pictures are held in test_packs.py."""

import pyarrow as pa
import pytest

from cdc_flower.data.pictures import PackError
from cdc_flower.data.rows import check_schema, check_text

TEXTS = {"clip_id": ["c"], "question": ["q?"], "answer": ["a"], "qtype": [""], "domain": [""], "user": [""]}
CLIPS = {**TEXTS, "frames": [[b"x"]], "fps": [4.0]}


def test_a_pack_of_clips_is_told_from_one_of_pictures():
    assert check_schema(pa.table(CLIPS).schema, "f")
    plain = {**TEXTS, "image_id": ["p"], "image": [b"x"]}
    del plain["clip_id"]
    assert not check_schema(pa.table(plain).schema, "f")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": None}, "f: column 'frames' is missing; a pack needs frames, fps, clip_id"),
        ({"fps": None}, "f: column 'fps' is missing"),
        ({"frames": ["x"]}, "f: column 'frames' holds string, it must hold lists of bytes"),
        ({"frames": [["x"]]}, "f: column 'frames' holds list.* it must hold lists of bytes"),
        ({"fps": ["4"]}, "f: column 'fps' holds string, it must hold numbers"),
        ({"image": [b"x"]}, "f: columns of pictures and of clips; allowed: image, image_id, or frames"),
    ],
)
def test_other_columns_are_refused_with_their_name(change, message):
    columns = {name: values for name, values in {**CLIPS, **change}.items() if values is not None}
    with pytest.raises(PackError, match=message):
        check_schema(pa.table(columns).schema, "f")


@pytest.mark.parametrize("fps", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused_with_its_row(fps):
    twice = {name: values * 2 for name, values in TEXTS.items()} | {"fps": [4.0, fps]}
    with pytest.raises(PackError, match="f: row 1, column 'fps'.*allowed: above 0, up to 1000"):
        check_text(pa.table(twice), "f")


def test_an_empty_name_of_a_clip_is_refused_as_such():
    with pytest.raises(PackError, match="f: row 0, column 'clip_id': empty"):
        check_text(pa.table({**TEXTS, "clip_id": [" "], "fps": [1.0]}), "f")
