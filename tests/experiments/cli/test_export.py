"""`cdc-flower export` and `cdc-flower families`."""

from __future__ import annotations

import json

import pytest

from cdc_flower.models import export as exporting
from experiments.cli.app import main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_a_run_that_is_none_is_refused_in_a_line(tmp_path, capsys):
    assert run("export", str(tmp_path), str(tmp_path / "out")) == 2
    told = capsys.readouterr().err
    assert "config.json is missing" in told
    assert told.count("\n") == 1


def test_the_command_hands_over_what_it_was_given(tmp_path, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(exporting, "export", lambda *arguments: given.append(arguments) or arguments[1])
    assert run("export", str(tmp_path), str(tmp_path / "a")) == 0
    assert run("export", str(tmp_path), str(tmp_path / "b"), "--device", "3", "--merge") == 0
    assert given == [(tmp_path, tmp_path / "a", None, False), (tmp_path, tmp_path / "b", 3, True)]
    assert capsys.readouterr().out.splitlines() == [
        f"adapter: {tmp_path / 'a'}",
        f"merged student: {tmp_path / 'b'}",
    ]


def test_the_families_are_listed_for_people_and_programs(capsys):
    assert run("families") == 0
    assert "smolvlm" in capsys.readouterr().out
    assert run("families", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows][:4] == ["llava", "smolvlm", "idefics3", "qwen2_5_vl"]
    assert rows[3]["class"] == "Qwen2_5_VLForConditionalGeneration"
    assert [row["units"] for row in rows[:2]] == [["tokens", "jpeg", "patches"], ["tokens", "jpeg"]]
    assert len({tuple(row) for row in rows}) == 1
