"""Large JSON files are read one object at a time, in any order of their lists, and refused in one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.data import json_arrays
from cdc_flower.data.json_arrays import objects
from cdc_flower.data.pictures import PackError

FILE = {
    "info": {"a": [1, {"b": "]}"}], "n": 12},
    "x": [{"i": 1}, {"i": 22}],
    "n": -3.5e7,
    "y": [],
    "z": [1, "]"],
}


def written(tmp_path, text):
    path = tmp_path / "file.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def test_lists_are_found_by_name_and_all_else_is_passed_over(tmp_path):
    assert list(objects(written(tmp_path, FILE), "y", "x")) == [("x", 0, {"i": 1}), ("x", 1, {"i": 22})]
    assert list(objects(written(tmp_path, [{"i": 1}, {}]))) == [("", 0, {"i": 1}), ("", 1, {})]
    assert list(objects(written(tmp_path, "\ufeff [ ]\n"))) == []


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), values, max_size=3), max_size=4),
    st.dictionaries(st.text(max_size=3), values, max_size=3),
    st.integers(1, 9),
    st.sampled_from([None, 1]),
)
def test_whatever_the_chunks_the_objects_are_those_of_json(tmp_path_factory, items, more, chunk, indent):
    path = tmp_path_factory.mktemp("json") / "file.json"
    path.write_text(json.dumps({**more, "wanted": items, "n": 1234567}, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_arrays, "CHUNK", chunk)
        assert [item for *_, item in objects(path, "wanted")] == items


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not JSON as expected: at character 0: the end of the file found; allowed: {"),
        ("[]", "'[' found; allowed: {"),
        ('{"x": [{"i": 1}', "the end of the file found; allowed: , or ]"),
        ('{"x": [{"i": 1} {"i": 2}]}', "'{' found; allowed: , or ]"),
        ('{"x": [{"i": nope}]}', "not JSON as expected: at character 7"),
        ('{"x": [{"i": 1}, 5]}', r"x[1]: int found; allowed: an object"),
        ('{"x": {"i": 1}}', "'{' found; allowed: ["),
        ('{"y": [], "z": 1}', "no list 'x' in it; found: y, z"),
        ('{"x": [' + "[" * 100_000, "not JSON as expected"),
    ],
)
def test_what_is_not_of_that_form_is_refused_by_place(tmp_path, text, named):
    path = written(tmp_path, text)
    with pytest.raises(PackError) as error:
        list(objects(path, "x"))
    assert named in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "file.json").write_bytes(b'{"x": [{"i": "\xff"}]}')
    with pytest.raises(PackError, match="not JSON as expected"):
        list(objects(tmp_path / "file.json", "x"))


def test_a_value_without_end_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_arrays, "CHUNK", 100)
    monkeypatch.setattr(json_arrays, "LONGEST", 1000)
    path = written(tmp_path, '{"x": [{"i": "' + "a" * 10_000 + '"}]}')
    with pytest.raises(PackError, match="not JSON as expected"):
        list(objects(path, "x"))
