"""The table of harm: which runs it makes, and what it says of them."""

from __future__ import annotations

import pytest

from cdc_flower.config import parse
from cdc_flower.rules import POISONS
from clients import poisons
from experiments.controls import poisoning
from experiments.controls.poisoning import NOBODY, SILENT, figures, settings, shares, table, written
from strategies.run import run_local


@pytest.mark.parametrize("kind", [NOBODY, SILENT, *POISONS])
def test_settings_of_every_run_are_settings(kind, tmp_path):
    run = parse(settings(kind, "on", 100, tmp_path)).run
    assert (run.poison_devices == "") == (kind in (NOBODY, SILENT))
    assert (run.fail_devices != "") == (kind == SILENT)
    tight = parse(settings(kind, "on", 100, tmp_path, rounds=2, budget=4000))
    assert (tight.uplink.budget, tight.run.rounds, tight.run.eval_every) == (4000, 2, 2)


def test_more_and_more_devices_write_wrong_answers(tmp_path):
    runs = [parse(written(n, 100, tmp_path)).run for n in (0, 2)]
    assert [run.poison_devices for run in runs] == ["", "0,1:mislabelled"]
    assert {run.method for run in runs} == {"labelled"}
    assert shares({2: {"drift": 41.26, "source": 90.0}}).splitlines()[2] == "| 2 | 41.3 | 90.0 |"


def test_a_row_says_what_is_lost_and_what_honest_devices_lose():
    clean = {"drift": 40.0, "source": 90.0, "liars": 20.0, "honest": 100.0}
    lied = {"drift": 12.34, "source": 80.0, "liars": 64.0, "honest": 100.0}
    held = {"drift": 38.0, "source": 89.0, "liars": 0.0, "honest": 97.0}
    rows = table({NOBODY: {"off": clean, "on": clean}, "huge": {"off": lied, "on": held}}).splitlines()
    assert rows[2].endswith("| 20 | 20 | 0.0 % |")
    assert rows[3] == "| huge | 12.3 | 38.0 | 80.0 | 89.0 | 64 | 0 | 3.0 % |"
    some = table({NOBODY: {"off": clean}, "huge": {"on": held}}).splitlines()
    assert some[2] == f"| {NOBODY} | 40.0 |  | 90.0 |  | 20 |  |  |"
    assert some[3] == "| huge |  | 38.0 |  | 89.0 |  | 0 | 3.0 % |"


def test_aims_are_counted_in_every_batch_of_the_run_and_the_kind_stays_what_it_was(monkeypatch):
    found, sent = iter([(1.0, 0.9), (0.5, 0.7)]), []
    monkeypatch.setitem(poisons.KINDS, "creeping", lambda task, batch, who: (task, batch, who))
    monkeypatch.setattr(poisons, "reached", lambda task, batch, harmful: next(found))

    def run(folder, own):
        assert own["run.poison-devices"] == "0,3:creeping"
        assert own["cloud.steps"] == 0
        sent.extend(poisons.KINDS["creeping"]("task", "batch", [who]) for who in (0, 3))

    monkeypatch.setattr(poisoning, "made", run)
    search = poisons.KINDS["creeping"]
    assert poisoning.aims("creeping", 100) == pytest.approx({"batches": 2, "aimed": 75, "unseen": 80})
    assert sent == [("task", "batch", [0]), ("task", "batch", [3])]
    assert poisons.KINDS["creeping"] is search


@pytest.mark.slow
def test_liars_give_nothing_where_the_doorkeeper_stands(run_settings, tmp_path, monkeypatch):
    monkeypatch.setattr("strategies.doorkeeper.FARTHER", (3.0, 3.0))  # A has 40 pictures of 4 tokens here
    monkeypatch.setattr("strategies.doorkeeper.PICTURES", (16, 1000))
    found = {}
    for doorkeeper in ("off", "on"):
        own = run_settings(
            devices=4, rounds=2, eval_every=2, poison_devices="0,3:flood", cloud_doorkeeper=doorkeeper
        )
        folder = tmp_path / doorkeeper
        run_local(parse({**own, "run.out-dir": str(folder)}))
        found[doorkeeper] = figures(folder)
    assert found["off"]["liars"] > 0
    assert found["on"]["liars"] == 0
    assert found["on"]["honest"] == found["off"]["honest"] > 0
    assert {"drift", "source", "dropped_strange"} <= set(found["on"])
