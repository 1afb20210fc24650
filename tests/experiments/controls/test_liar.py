"""What is said of a deployment with a liar; the deployment itself is in tests/deploy/test_liars.py."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from experiments.controls import liar
from experiments.controls.liar import table


def test_a_row_says_what_was_taken_and_why_the_rest_was_not():
    off = {"drift": 30.04, "source": 90.0, "liars": 64.0, "honest": 192.0}
    on = {
        **off,
        "drift": 28.0,
        "liars": 0.0,
        "honest": 190.0,
        "dropped_strange": 34.0,
        "dropped_unheard": 32.0,
    }
    lines = table({"off": off, "on": on}).splitlines()
    assert lines[0].count("|") == lines[1].count("|")
    assert lines[2:] == [
        "| off | 30.0 | 90.0 | 64 | 192 | 0 | 0 | 0 | 0 |",
        "| on | 28.0 | 90.0 | 0 | 190 | 34 | 0 | 0 | 32 |",
    ]


def test_both_deployments_are_told_of_and_an_unknown_kind_is_refused(monkeypatch, tmp_path):
    import typer

    asked = []

    def deployed(kind, door, devices, rounds, folder):
        asked.append((kind, door, devices, rounds, folder.name))
        return {"drift": 1.0, "source": 2.0, "liars": 3.0, "honest": 4.0}

    monkeypatch.setattr(liar, "deployed", deployed)
    app = typer.Typer()
    app.command()(liar.main)
    said = CliRunner().invoke(app, ["--kind", "flood", "--devices", "3", "--out", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert asked == [("flood", "off", 3, 4, "off"), ("flood", "on", 3, 4, "on")]
    assert "| on | 1.0 | 2.0 | 3 | 4 |" in said.output
    wrong = CliRunner().invoke(app, ["--kind", "lies"])
    assert wrong.exit_code == 2
    assert "allowed: noise, shuffled" in " ".join(wrong.output.split())


@pytest.mark.parametrize("door", ["off", "on"])
def test_settings_are_settings(door):
    from cdc_flower.config import parse

    own = {**liar.SETTINGS, "run.poison-devices": "3:huge", "cloud.doorkeeper": door}
    assert parse(own).cloud.doorkeeper == door
