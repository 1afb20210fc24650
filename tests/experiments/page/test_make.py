"""Cells are made once, kept, gone on with and made again when what they depend on changes."""

import dataclasses
import json

import pytest

from cdc_flower.config import ConfigError
from experiments.page import cells, digests, make, same
from experiments.page.plan import TEACHER, Cell


def figures(making, arm, seed=0):
    return cells.read(making.folder, Cell("scenes", "", arm, seed))


def test_a_cell_has_its_figures_and_is_made_once(making):
    _, ended = making()
    assert ended.made == [f"scenes: {arm}, seed 0" for arm in (TEACHER, "static", "cdc", "random tokens")]
    assert (ended.failed, ended.left) == ({}, [])
    cdc = figures(making, "cdc")
    assert cdc["accuracy"]["source"][-1] == [4, 0.88]
    assert cdc["items"] == {"source": "10", "object": "1", "question": "0"}
    assert (cdc["uplink_bytes"], cdc["device_gflops"]) == (4 * 2 * 100, 8.0)
    assert cdc["settings"]["cloud.steps"]
    assert "run.out-dir" not in cdc["settings"]
    assert making()[1].made == []


def test_a_method_that_was_written_anew_and_means_the_same_is_made_once_and_the_others_are_kept(
    making, monkeypatch
):
    making(seeds=2)
    monkeypatch.setattr(digests, "of_method", lambda name: f"new {name}" if name == "cdc" else name)
    tasks, ended = making(only=("main", "scenes", "cdc", "static", TEACHER), seeds=2)
    assert {task.why for task in tasks if task.cell.arm in ("static", TEACHER)} == {""}
    changed = {task.state.rpartition(",")[0] for task in tasks if task.cell.arm == "cdc"}
    assert changed == {"to make: its source has changed"}
    assert ended.made == ["scenes: cdc, seed 0"]
    assert ended.kept == ["scenes: cdc, seed 1"]
    assert [one.seen for one in same.read(making.folder)] == ["scenes: cdc, seed 0"]
    assert figures(making, "cdc", 1)["digests"]["method"] == "cdc"  # what it was made with
    tasks = making(seeds=2, most_minutes=0)[0]
    assert {task.cell.arm for task in tasks if task.why} == {"random tokens"}  # asks for evidence of its own
    assert [task.state for task in tasks if task.same] == ["kept (same bits as scenes: cdc, seed 0)"]
    assert making(seeds=2)[1].made == ["scenes: random tokens, seed 0"]
    assert making(seeds=2)[1].made == []


def test_evidence_of_an_earlier_call_keeps_cells_of_other_seeds(making, monkeypatch):
    making(only=("main", "scenes", "cdc"), seeds=2)
    monkeypatch.setattr(digests, "of_method", lambda name: f"new {name}")
    making(only=("main", "scenes", "cdc"), seeds=1)
    monkeypatch.setattr(digests, "of_method", lambda name: f"newer {name}")
    assert making(only=("main", "scenes", "cdc"), seeds=1)[1].made == ["scenes: cdc, seed 0"]
    tasks, ended = making(only=("main", "scenes", "cdc"), seeds=2)
    assert ([task.why for task in tasks], ended.made) == (["", ""], [])


def test_a_method_that_ends_with_other_bits_is_made_again_whole(making, monkeypatch):
    making(seeds=2)
    path = cells.file_of(making.folder, Cell("scenes", "", "cdc", 0))
    path.write_text(path.read_text().replace('"source": "10"', '"source": "01"'))  # what it answered then
    monkeypatch.setattr(digests, "of_method", lambda name: f"new {name}")
    _, ended = making(only=("main", "scenes", "cdc"), seeds=2)
    assert (ended.made, ended.kept) == (["scenes: cdc, seed 0", "scenes: cdc, seed 1"], [])
    assert [one.bits for one in same.read(making.folder)] == [False, True]


def test_another_pair_makes_everything_again(making, monkeypatch):
    making(seeds=2)
    monkeypatch.setattr(digests, "of_pair_and_data", lambda config: {"pair": "another", "data": "d"})
    monkeypatch.setenv("FAKE_PAIR", "another")
    tasks, ended = making(seeds=2)
    assert {task.told for task in tasks} == {"its pair has changed"}
    assert len(ended.made) == 8


def test_an_interrupted_cell_goes_on_and_a_finished_run_is_only_read(making, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_BREAK", "2")
    _, ended = making(only=("main", "scenes", "cdc"))
    assert ended.failed == {"scenes: cdc, seed 0": "RuntimeError: round 2 broke"}
    monkeypatch.delenv("FAKE_BREAK")
    capsys.readouterr()
    assert making(only=("main", "scenes", "cdc"))[1].made
    assert "goes on with cdc" in capsys.readouterr().out
    cells.file_of(making.folder, Cell("scenes", "", "cdc", 0)).unlink()
    assert making(only=("main", "scenes", "cdc"))[1].made
    assert capsys.readouterr().out == ""


def test_a_cell_that_fails_is_named_and_the_others_are_made(making, plan):
    part = plan.parts["main"]
    arms = {"fedavg_full": {"run.method": "fedavg_full"}, **part.arms}  # the stand-in has no memory for it
    names = {arm: arm for arm in arms}
    other = dataclasses.replace(part, arms=arms, variants=dict.fromkeys(arms, ""), plain=names)
    _, ended = making(of=dataclasses.replace(plan, parts={"main": other}))
    assert ended.failed == {"scenes: fedavg_full, seed 0": "RuntimeError: no memory at all"}
    assert len(ended.made) == 4


def test_no_further_cell_is_started_when_the_time_is_over(making):
    _, ended = making(most_minutes=0)
    assert (ended.made, len(ended.left)) == ([], 4)
    assert make.minutes(ended.left, 2) == pytest.approx((20 + 3 * make.GUESS) / 120)


def test_a_cell_of_a_pack_is_written_without_answers(making, monkeypatch, tmp_path):
    (tmp_path / "packs" / "emoji").mkdir(parents=True)
    monkeypatch.setenv(make.PACKS, str(tmp_path / "packs"))
    making(only=("main", "emoji", "cdc"))
    items = cells.read(making.folder, Cell("emoji", "", "cdc", 0))["items"]
    assert items["source"] == {"items": 2, "sums": [1.0]}


def test_what_is_not_here_is_skipped_with_what_to_do(making, monkeypatch):
    monkeypatch.delenv(make.PACKS, raising=False)
    tasks, _ = making(only=("main", "emoji"))
    assert {task.skipped for task in tasks} == {
        "no pack 'emoji': CDC_FLOWER_PACKS is not set; allowed: the folder of the packs"
    }
    tasks, _ = making(only=("crossing",))
    assert "cdc-flower pretrain --data scenes --out" in tasks[-1].skipped

    def lost(config):
        raise ConfigError("no pair of models")

    monkeypatch.setattr(digests, "of_pair_and_data", lost)
    assert {task.skipped for task in making(only=("ladder",))[0]} == {"no pair of models"}


def test_a_figure_that_cannot_be_read_is_a_failed_cell(making, monkeypatch):
    def torn(cell, depends, run):
        raise json.JSONDecodeError("torn", "", 0)

    monkeypatch.setattr(cells, "figures", torn)
    _, ended = making(only=("main", "scenes", "cdc"))
    assert list(ended.failed) == ["scenes: cdc, seed 0"]


@pytest.mark.parametrize(
    ("data", "pair", "command"),
    [
        ("scenes", "scenes-t40", "--data scenes --teacher-share 0.4 --out"),
        ("scenes", "scenes-t100", "--data scenes --out"),
        ("emoji", "emoji-2", "--data $CDC_FLOWER_PACKS/emoji --recipe-seed 2 --out"),
    ],
)
def test_a_pair_that_is_not_here_is_said_how_to_train(data, pair, command, monkeypatch, tmp_path):
    monkeypatch.setenv(make.PACKS, str(tmp_path))
    (tmp_path / data).mkdir()
    with pytest.raises(ConfigError) as refused:
        make.base_settings(Cell(data, pair, "cdc", 0))
    assert f"`cdc-flower pretrain {command} " in str(refused.value)
