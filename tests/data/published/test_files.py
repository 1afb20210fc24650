"""Files are found by name, at any depth that is looked into, and fields are read or named."""

import pytest

from cdc_flower.data.pictures import PackError
from cdc_flower.data.published.files import DEPTH, Source, coco, field, file_names, table, texts
from tests.published_files import jpeg, put


def test_pictures_are_found_under_the_names_of_either_year(tmp_path):
    put(tmp_path / "a" / "val2014" / "COCO_val2014_000000000009.jpg", jpeg(9))
    put(tmp_path / "train2017" / "000000000011.jpg", jpeg(11))
    source = Source(tmp_path, print)
    assert source.find(file_names(coco(9))) == tmp_path / "a/val2014/COCO_val2014_000000000009.jpg"
    assert source.find(file_names(coco(11))) == tmp_path / "train2017/000000000011.jpg"
    assert source.find(file_names(coco(12))) is None


def test_a_name_from_a_file_cannot_leave_the_source(tmp_path):
    put(tmp_path / "secret.jpg", jpeg(1))
    put(tmp_path / "source" / "a.jpg", jpeg(1))
    assert Source(tmp_path / "source", print).find(file_names("nocaps/../secret.jpg")) is None


def test_folders_are_looked_into_down_to_a_depth(tmp_path):
    for depth in (DEPTH, DEPTH + 1):
        put(tmp_path.joinpath(*"abcdefg"[:depth]) / f"{depth}.jpg", jpeg(1))
    source = Source(tmp_path, print)
    assert source.find([f"{DEPTH}.jpg"])
    assert source.find([f"{DEPTH + 1}.jpg"]) is None
    with pytest.raises(PackError, match="no such folder"):
        Source(tmp_path / "nowhere", print)


def test_parts_are_those_of_which_every_file_is_there(tmp_path):
    for name in ("q_train.json", "a_train.json", "q_val.json"):
        put(tmp_path / name, [])
    with pytest.raises(PackError, match=r"set: 'a_val\.json' is not in"):
        list(Source(tmp_path, print).splits("set", "q_{}.json", "a_{}.json"))
    put(tmp_path / "a_val.json", [])
    assert [split for split, _ in Source(tmp_path, print).splits("set", "q_{}.json", "a_{}.json")] == [
        "train",
        "test",
    ]
    with pytest.raises(PackError, match=r"other: 'c_train\.json' or 'c_val\.json' is not in"):
        list(Source(tmp_path, print).splits("other", "c_{}.json"))
    (tmp_path / "q_train.json").unlink()
    (tmp_path / "a_train.json").unlink()
    ((only, files),) = Source(tmp_path, print).splits("set", "q_{}.json", "a_{}.json")
    assert (only, files) == ("test", [tmp_path / "q_val.json", tmp_path / "a_val.json"])


@pytest.mark.parametrize(
    ("record", "kind", "named"),
    [
        ({"other": 1}, str, "field 'f' is missing; fields there: other"),
        ({"f": 1}, str, "field 'f' is int, not str"),
        ({"f": True}, int, "field 'f' is bool, not int"),
        ({"f": 0}, bool, "field 'f' is int, not bool"),
        ({"f": None}, list, "field 'f' is NoneType, not list"),
        ({"f": -(2**63)}, int, "field 'f' = -9223372036854775808: more than 63 bits"),
        ({"f": "a\ud800"}, str, r"field 'f' = 'a\\ud800': no text in Unicode"),
    ],
)
def test_a_field_that_is_not_there_or_of_another_type_is_named(record, kind, named):
    with pytest.raises(PackError, match=f"here: {named}"):
        field(record, "f", kind, "here")


def test_fields_are_read_with_single_spaces():
    assert field({"f": " a\n b"}, "f", str, "") == "a b"
    assert texts({"f": ["a ", "b"]}, "f", "") == ["a", "b"]
    for wrong in ([], ["a", 1], ["a", " "]):
        with pytest.raises(PackError, match="must be a list of texts"):
            texts({"f": wrong}, "f", "")


def test_what_a_row_lacks_is_empty():
    (row,) = table([{"answer": "a", "answers": ["a"]}]).to_pylist()
    assert row["question"] == ""
    assert row["choices"] == []
