"""Fields of a record become columns: mapped, further ones, and those that cannot be."""

import pytest

from cdc_flower.data import columns
from cdc_flower.data.columns import fields_of, filled, frame_of, lines_of, row_of
from cdc_flower.data.pictures import PackError

FIELDS = fields_of(None)
ONE = {"image": "a.png", "question": "what?", "answer": "owl"}


def test_further_fields_are_kept_as_text_and_others_are_not():
    further = {"height": 3.5, "night": True, "note": " x ", "choices": ["a", "b"], "box": [1, 2], "deep": {}}
    row = row_of({**ONE, **further, "nothing": None}, FIELDS, "here")
    assert row == {
        **{"question": "what?", "answer": "owl", "qtype": "", "domain": "", "user": "", "split": ""},
        **{"height": "3.5", "night": "true", "note": "x", "choices": ["a", "b"]},
    }


def test_a_field_is_kept_once_and_never_takes_the_place_of_a_column_of_the_pack():
    record = {**ONE, "image_id": "7", "frames": "x", "thing": "cup", "said": "mug"}
    row = row_of(record, fields_of({"concept": "thing", "answer": "said"}), "here")
    assert (row["concept"], row["answer"]) == ("cup", "mug")
    assert not {"thing", "said", "image_id", "frames"} & row.keys()
    assert row_of(record, fields_of({"image_id": "image_id"}), "here")["image_id"] == "7"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "null"])
def test_a_number_that_is_none_counts_as_missing(tmp_path, value):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"image": "a.png", "question": "q", "answer": {value}, "user": {value}}}')
    ((where, record),) = lines_of(path)
    with pytest.raises(
        PackError, match=r"line 1: field 'answer' \(column 'answer'\) is missing; found: image"
    ):
        row_of(record, FIELDS, where)
    row = row_of({**record, "answer": "owl", "height": record["answer"]}, FIELDS, where)
    assert (row["answer"], row["user"], "height" in row) == ("owl", "", False)


def test_what_a_row_lacks_is_empty():
    said = []
    rows = filled([{"answer": "a", "height": "3"}, {"answer": "b", "choices": ["b"]}], "file", said.append)
    assert rows == [
        {"answer": "a", "height": "3", "choices": []},
        {"answer": "b", "height": "", "choices": ["b"]},
    ]
    assert said == ["file: further columns: height, choices"]
    frame = frame_of(iter([{"answer": "a"}, {"answer": "b", "answers": ["b", "c"]}]), "file", said.append)
    assert frame["answers"].tolist() == [["a"], ["b", "c"]]


def test_no_rows_and_very_many_fields_are_refused():
    with pytest.raises(PackError, match="file: no rows"):
        filled([], "file", print)
    many = {f"f{i}": "x" for i in range(columns.MOST + 1)}
    with pytest.raises(PackError, match="file: 65 further fields; allowed: up to 64"):
        filled([many], "file", print)


def test_a_csv_file_has_a_head_and_any_text_in_its_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        '\ufefffile,question\r\na.mp4,"what, or ""who""\nis it?"\r\nb.mp4,é\r\n', encoding="utf-8"
    )
    assert list(lines_of(path)) == [
        (f"{path}: line 3", {"file": "a.mp4", "question": 'what, or "who"\nis it?'}),
        (f"{path}: line 4", {"file": "b.mp4", "question": "é"}),
    ]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"a,b\n1\n", "line 2: not as many cells as the head has; allowed: 2"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: not as many cells as the head has; allowed: 2"),
        ("a.csv", b"a,b,a\n1,2,3\n", r"a\.csv: column 'a' is there twice; allowed: once"),
        ("a.csv", b"a,b\n\xff,2\n", "no CSV file in UTF-8"),
        ("a.csv", b'a,b\n"1"2,3\n', "no CSV file in UTF-8"),
        ("a.jsonl", b'{"a": 1}\n{"a"\n', "line 2: not JSON"),
        ("a.jsonl", b"\xff\n", "line 1: not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: list found; allowed: one JSON object a line"),
    ],
    ids=range(9),
)
def test_a_line_that_cannot_be_read_is_named(name, data, said, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PackError, match=said):
        list(lines_of(tmp_path / name))
