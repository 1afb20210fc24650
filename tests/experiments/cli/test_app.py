"""What a person types ends in one line that helps, and the right exit code."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.cli import compare as comparing
from experiments.run import simulate
from experiments.run.simulate import EngineError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--set", "roundz=3"], "unknown setting 'roundz'; did you mean run.rounds"),
        (["compare", "--set", "run.rounds=0"], "setting 'run.rounds' = 0"),
        (["compare", "--set", "rounds"], "allowed: key=value"),
        (["compare", "--methods", "cdc,magic"], "unknown method 'magic'; allowed: static, cdc"),
        (["compare", "--preset", "nope"], "unknown preset 'nope'; allowed:"),
        (["compare", "--nope"], "No such option"),
        (["simulate", "--method", "magic"], "setting 'run.method' = 'magic'"),
        (
            ["simulate", "--ray-address", "x:1", "--workers", "2"],
            "--workers, --ray-address with --engine local; allowed: --engine fleet",
        ),
        (["pretrain", "--steps-share", "0"], "steps-share = 0; allowed: above 0, at most 1"),
        (["pretrain", "--steps-share", "1.5"], "steps-share = 1.5; allowed: above 0, at most 1"),
        (["data", "check", "nowhere"], "nowhere"),
        (["data", "show", "nowhere"], "nowhere"),
        (["data", "import-jsonl", "nowhere", "out", "--map", "x"], "--map 'x'; allowed: column=field"),
        (["report", "nowhere"], "comparison.json is missing"),
        (["simulate", "--resume", "nowhere"], "config.json is missing"),
        (
            ["simulate", "--resume", "x", "--method", "cdc"],
            "--method with --resume: a run goes on with its own",
        ),
        (["simulate", "--resume", "x", "--out", "y"], "--out with --resume"),
        (["simulate", "--resume", "x", "--data", "emoji"], "--data with --resume"),
        (["simulate", "--resume", "x", "--preset", "none"], "--preset with --resume"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    lines = [line for line in err.splitlines() if not line.startswith("preset ")]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_help_lists_the_commands_and_is_quick():
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "experiments.cli.app", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("compare", "simulate", "pretrain", "data", "report"):
        assert name in done.stdout
    for slow in ("torch", "flwr", "pandas", "matplotlib", "transformers"):
        assert not any(line.rstrip().endswith(f" {slow}") for line in done.stderr.splitlines())
    assert time.monotonic() - began < 10


def test_version(command):
    code, out, _ = command("--version")
    assert code == 0
    assert out.startswith("cdc-flower ")


def test_the_preset_that_is_used_is_named_in_one_line(command):
    _, _, err = command("compare", "--methods", "magic")
    assert err.splitlines()[0] == "preset scenes: experiments/presets/scenes.toml"


def test_ctrl_c_ends_with_130(command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "chosen_settings", interrupted)
    code, _, err = command("compare")
    assert (code, err) == (130, "interrupted\n")


def test_a_failed_engine_is_one_line_and_exit_code_1(command, monkeypatch):
    def failing(*_):
        raise EngineError("the run ended as finished:failed")

    monkeypatch.setattr(simulate, "flower", failing)
    code, _, err = command("simulate", "--engine", "flower", "--preset", "none")
    assert code == 1
    assert err.splitlines()[-1] == "error: the run ended as finished:failed"


def test_a_pack_is_checked_and_counted(command, tmp_path):
    data = pytest.importorskip("cdc_flower.data.packs")
    from cdc_flower.config import parse

    pack = data.load(parse({"data.scenes-train": 40, "data.scenes-test": 20}).data)
    for split in ("train", "test"):
        frame, images = getattr(pack, split), getattr(pack, f"{split}_images")
        frame["image"] = [images[i] for i in frame["image_id"]]
    data.write_pack(tmp_path / "pack", pack.train, pack.test)
    code, out, _ = command("data", "check", tmp_path / "pack")
    assert code == 0
    assert f"train: {len(pack.train)} questions on 40 pictures" in out
    code, out, _ = command("data", "show", tmp_path / "pack", "--set", "data.known-questions=what")
    assert code == 0
    assert "question" in out
