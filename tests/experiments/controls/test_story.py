"""What is told of a deployment; slow: the whole of it, with real processes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from experiments.controls import story
from experiments.controls.story import ASKED, Told, questions
from strategies.accuracy import judged


def world(rows: int):
    domain = ["source", "object"] * (rows // 2)
    test = pd.DataFrame({"drift_domain": domain, "answer": [str(i) for i in range(rows)]})
    return SimpleNamespace(test=test, worth=lambda text, truth: float(text == truth.answer), task="exact")


def test_each_domain_is_asked_as_many_questions_and_judged_by_itself():
    here = world(100)
    rows = questions(here)
    assert rows["drift_domain"].value_counts().to_dict() == {"source": ASKED, "object": ASKED}
    given = [answer if domain == "object" else "?" for domain, answer in rows.itertuples(index=False)]
    here.test = rows
    assert judged(given, here).accuracy == {"object": 1.0, "source": 0.0}


def test_a_command_is_told_with_what_it_prints_and_how_it_ended(capsys):
    told = Told()
    told.ran("cloud", "status", "no-such-folder")
    head, *shown, code = told.lines
    assert head == "00:00 $ cdc-flower cloud status no-such-folder"
    assert any("no-such-folder" in line for line in shown)
    assert code.strip() == "(exit code 2)"
    assert capsys.readouterr().out.splitlines() == told.lines


def test_a_picture_without_a_browser_is_refused_before_anything_is_started(monkeypatch, tmp_path):
    monkeypatch.setattr(story.shutil, "which", lambda name: None)
    with pytest.raises(typer.BadParameter, match="no browser here; allowed: where one of chromium"):
        story.main(2, tmp_path / "out", tmp_path / "page.png")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_deployment_learns_goes_back_exactly_and_lets_a_revoked_device_in_no_longer(tmp_path):
    app = typer.Typer()
    app.command()(story.main)
    said = CliRunner().invoke(app, ["--rounds", "3", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "story.json").read_text())
    assert found["back_as_shipped"], said.output
    assert found["revoked_code"] == 1, said.output
    assert list(found["right"]) == [
        "as shipped",
        "after 3 rounds",
        "when the cloud has gone back",
        "after 3 rounds more",
    ]
