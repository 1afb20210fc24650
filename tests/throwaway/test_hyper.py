"""A method of another package, two files, appears everywhere without one edit here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cdc_flower import plugins, results
from cdc_flower.config import flat, parse, sections
from experiments.cli import app as cli
from tests.installed import announce

HERE = Path(__file__).parent
ENTRY_POINTS = """
[cdc_flower.methods]
hyper = hyper.strategy:Hyper

[cdc_flower.device_work]
hyper = hyper.device:work
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What installing the package leaves: its modules on the path, and metadata with its entry points."""
    announce(tmp_path / "site", "hyper", ENTRY_POINTS)
    (tmp_path / "site" / "hyper").symlink_to(HERE / "hyper")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    path = os.pathsep.join([str(tmp_path / "site"), *sys.path])
    monkeypatch.setenv("PYTHONPATH", path)
    plugins.forget()
    yield tmp_path / "site"
    monkeypatch.undo()
    plugins.forget()


@pytest.fixture
def hyper(installed, run_settings):
    """Settings of a run of the method."""
    return lambda **more: run_settings(method="hyper", **more)


def test_it_is_listed_with_its_traits_and_settings(installed):
    for command, said in (("methods", '"hyper"'), ("settings", '"hyper.scale"')):
        listed = CliRunner().invoke(cli.app, [command, "--json"])
        assert listed.exit_code == 0, listed.stderr
        assert said in listed.stdout
    assert "hyper" in sections()
    assert parse({"run.method": "hyper", "hyper.scale": 0.5}).run.method == "hyper"
    assert "hyper.scale" not in flat(parse({}))  # a run does not depend on what else is installed


def test_it_is_compared_beside_the_others_with_a_report(installed, hyper, tmp_path):
    from experiments.run import compare

    small = {k: v for k, v in hyper(eval_every=1).items() if k not in ("run.method", "run.out-dir")}
    made = compare.run(small, ("static", "hyper"), 1, tmp_path / "out", 0, progress=False)
    assert made.methods["method"].tolist() == ["static", "hyper"]
    row = made.methods.set_index("method").loc["hyper"]
    assert (row["labels"], row["device_backprop"]) == (False, False)
    assert row["uplink_bytes"] > 0
    assert row["downlink_bytes"] > 0
    assert "hyper" in (tmp_path / "out" / "report.html").read_text()
    assert "hyper" in json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]


def test_every_device_is_evaluated_with_the_adapter_of_its_own(installed, hyper):
    from strategies.method import method
    from strategies.run import prepare, run_local

    found = results.read(run_local(parse(hyper(**{"hyper.scale": 0.05}))))
    assert found.status == "completed"
    assert set(found.devices["status"]) == {"ok"}
    assert (found.devices["flops_forward"] > 0).all()
    assert found.metrics.set_index("name").loc["personal", "value"].max() == 3
    setup = prepare(parse(hyper()))
    built = method("hyper").build(setup)
    built.own[1] = built.base + 1
    assert not np.array_equal(built.adapter_of(1), built.adapter_of(0))


def test_it_stops_and_goes_on_bit_for_bit(installed, hyper):
    from strategies.run import run_local

    def stop(stage, done, total):
        if (stage, done) == ("rounds", 2):
            raise KeyboardInterrupt

    whole = results.read(run_local(parse(hyper())))
    settings = hyper()
    with pytest.raises(KeyboardInterrupt):
        run_local(parse(settings), stop)
    again = results.read(run_local(parse(settings), resume=True))
    assert again.run["ledger_digest"] == whole.run["ledger_digest"]
    assert again.rounds.equals(whole.rounds)


def test_virtual_time_charges_its_devices_and_its_cloud(installed, hyper):
    from strategies.run import run_local

    timed = hyper(mode="sync", trace="always", round_every=1000.0)
    found = results.read(run_local(parse(timed)))
    assert (found.devices["work_seconds"] > 0).all()
    cloud = found.metrics.query("name == 'cloud_seconds'")["value"]
    assert (cloud > 0).any()


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*subprocess .* is still running:ResourceWarning", "ignore:unclosed file:ResourceWarning"
)
def test_workers_of_another_process_find_it_too(installed, hyper):
    from strategies.run import run_fleet, run_local

    here = results.read(run_local(parse(hyper())))
    there = results.read(run_fleet(parse(hyper()), workers=1))
    assert there.run["ledger_digest"] == here.run["ledger_digest"]


def test_it_stands_among_liars_without_code_of_its_own(installed, hyper, tmp_path):
    from experiments.controls.hostile import HONEST, play

    own = hyper(devices=HONEST + 2, rounds=3)
    silent, lied = (
        play({**own, "run.out-dir": str(tmp_path / how)}, how, 0) for how in ("silent", "refused")
    )
    assert lied["status"] == "completed"
    assert set(lied["statuses"]) <= {"refused", "failed"}
    assert lied["honest"] == silent["honest"]
