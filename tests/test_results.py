"""What a run left is read back or refused by name, and its derived numbers mean what they say."""

import json

import pandas as pd
import pytest

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.run_folder import RunFolder


def test_a_failed_write_keeps_the_old_file_and_leaves_no_scrap(tmp_path):
    path = tmp_path / "a.json"
    results.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        results.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [([0.9, 0.7, 0.8], 0.1), ([0.5, 0.7, 0.6], -0.1), ([0.9, 0.95, 0.9], 0.0), ([], None)],
)
def test_forgetting_is_what_was_lost_since_the_student_was_shipped_and_negative_where_it_gained(
    source, expected
):
    rounds = pd.DataFrame(
        [(r, "source", "test", a) for r, a in enumerate(source)],
        columns=["round", "domain", "kind", "accuracy"],
    )
    assert results.forgetting(rounds) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, "", "config.json is missing"),
        ("config.json", "{", "cannot be read"),
        ("config.json", "[]", "a JSON object is expected"),
        ("config.json", "{}", "no run config"),
    ],
)
def test_a_folder_without_a_run_is_refused_by_name(tmp_path, name, content, message):
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(results.ResultError, match=message):
        results.read(tmp_path)


def test_a_torn_parquet_file_is_named(tmp_path):
    RunFolder(tmp_path).begin(parse({}), {}, {})
    (tmp_path / "rounds.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(results.ResultError, match=r"rounds\.parquet: cannot be read"):
        results.read(tmp_path)
