"""A comparison that cannot be made is refused in one line."""

import dataclasses
import json
import os
import time
from types import SimpleNamespace

import pytest

from cdc_flower.config import ConfigError, parse
from experiments.cli import compare as commands
from experiments.cli.checked import program
from experiments.report import summary
from experiments.run import compare, pairs, pool, settings
from strategies.method import method, methods


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "roundz=3"], "unknown setting 'roundz'; did you mean run.rounds"),
        (["--set", "run.rounds=0"], "setting 'run.rounds' = 0"),
        (["--set", "rounds"], "allowed: key=value"),
        (["--methods", "cdc,magic"], "unknown method 'magic'; allowed: cdc, cema"),
        (["--preset", "nope"], "unknown preset 'nope'; allowed:"),
        (["--nope"], "No such option"),
    ],
)
def test_what_cannot_be_compared_is_refused(refused, arguments, message):
    assert message in refused("compare", *arguments)


@pytest.mark.parametrize("folder", [".", "runs/static-0", "runs/cdc-1"])
def test_a_folder_in_which_a_run_goes_on_is_refused_before_any_work(
    folder, refused, taken, tmp_path, monkeypatch
):
    monkeypatch.setattr(pairs, "ensure", None)  # would fail: no work has begun
    out = tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / "comparison.json").write_text("{}")
    taken(out / folder)
    said = refused(
        "compare", "--preset", "none", "--methods", "static,cdc", "--seeds", "2", "--out", str(out)
    )
    assert f"folder '{(out / folder).resolve()}' is in use by process {os.getpid()} on " in said


def test_who_holds_a_folder_is_said_of_a_comparison_that_goes_on_there(refused, taken, tmp_path):
    (tmp_path / "out").mkdir()
    index = {"status": "interrupted", "methods": ["cdc"], "seeds": [0]}
    (tmp_path / "out/comparison.json").write_text(json.dumps(index))
    taken(tmp_path / "out")
    said = refused("compare", "--preset", "none", "--out", "out")
    assert f"folder '{tmp_path / 'out'}' is in use by process {os.getpid()} on " in said


@pytest.mark.parametrize("begins", [False, True])
def test_ctrl_c_says_what_goes_on_only_where_a_run_was_begun(monkeypatch, command, tmp_path, begins):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/comparison.json").write_text("{}")  # of an earlier one

    def interrupted(*_, out, **__):
        if begins:
            time.sleep(0.02)  # files have times of some milliseconds
            (out / "comparison.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "run", interrupted)
    code, _, err = command("compare", "--preset", "none", "--out", "out", "--replace")
    assert code == 130
    said = {
        False: ["interrupted: no run was begun yet; give the same command again"],
        True: [
            "interrupted: what was done is in 'out'; this goes on:",
            f"{program()} compare --preset none --out out --resume",
        ],
    }
    assert err.splitlines()[-len(said[begins]) :] == said[begins]


def test_the_common_methods_are_compared_unless_all_are_asked_for(monkeypatch, command):
    asked = []

    def compared(settings, methods, **options):
        asked.append(methods)
        raise ConfigError("enough")

    rare = dataclasses.replace(method("static").traits, shown=False)
    monkeypatch.setattr(method("static"), "traits", rare)
    monkeypatch.setattr(compare, "run", compared)
    _, out, _ = command("compare", "--methods", "all")
    assert out.startswith("note: without duet, mmpg, mmpg_cdc, which are for clips: the data are pictures\n")
    _, out, _ = command("compare", "--methods", "all", "--data", "clips")
    assert "note" not in out
    command("compare", "--methods", "cdc, static")
    command("compare")
    command("compare", "--preset", "clips")
    command("compare", "--preset", "clips", "--methods", "cdc")
    of_pictures = tuple(name for name in methods() if name not in ("mmpg", "duet", "mmpg_cdc"))
    given = [("cdc", "static"), None, settings.compared("clips"), ("cdc",)]
    assert asked == [of_pictures, tuple(methods()), *given]
    assert set(compare.shown()) == {"cdc", "labelled", "no_uplink", "fedavg_lora"}


def test_a_method_that_says_it_is_for_clips_is_left_out_on_pictures(monkeypatch):
    of_clips = dataclasses.replace(method("static").traits, clips=True)
    monkeypatch.setattr(method("static"), "traits", of_clips)
    chosen, wanting = compare.fitting(parse({"data.pack": "scenes"}).data)
    assert "static" in wanting
    assert "static" not in chosen
    assert "static" in compare.fitting(parse({"data.pack": "clips"}).data)[0]


def test_a_run_that_failed_is_named_with_the_log_that_its_worker_wrote(monkeypatch, command, tmp_path):
    arm = "mmpg, one for all"
    job = pool.Job(arm, 3, {"run.out-dir": str(summary.run_folder(tmp_path, arm, 3))})
    made = SimpleNamespace(status="failed", index={"failed": {job.name: "no memory"}}, out=tmp_path)
    monkeypatch.setattr(compare, "run", lambda *args, **options: made)
    monkeypatch.setattr(commands, "_show", lambda comparison: None)
    code, _, err = command("compare", "--methods", "static")
    assert code == 1
    log = tmp_path / "runs" / "mmpg, one for all-3.log"
    assert pool.log_of(tmp_path / "runs" / "mmpg, one for all-3") == log
    assert f"{job.name}: no memory; what it printed: {log}" in " ".join(err.split())
