"""A run that cannot be made, or not resumed like this, is refused in one line."""

import os

import pytest

from experiments.run import pairs, simulate
from experiments.run.simulate import EngineError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "fedavg_lra"], "unknown method 'fedavg_lra'; did you mean fedavg_lora? allowed: cdc, "),
        (
            ["--ray-address", "x:1", "--workers", "2"],
            "--workers, --ray-address with --engine local; allowed: --engine fleet",
        ),
        (["--resume", "."], "config.json is missing"),
        (["--resume", "x"], "'x' is no folder; allowed: a folder that is there"),
        (
            ["--method", "cdc", "--set", "run.method=static"],
            "--method and --set run.method; allowed: one of them",
        ),
        (["--out", "a", "--set", "run.out-dir=b"], "--out and --set run.out-dir; allowed: one of them"),
        (["--engine", "fleet", "--workers", "9999"], "--workers 9999; allowed: up to"),
        (["--set", "run.fail-devices=9:99", "--set", "run.devices=2"], "devices from 0 to 1"),
        (["--resume", ".", "--method", "cdc"], "--method with --resume: a run goes on with its own"),
        (["--resume", ".", "--out", "y"], "--out with --resume"),
        (["--resume", ".", "--data", "emoji"], "--data with --resume"),
        (["--resume", ".", "--preset", "none"], "--preset with --resume"),
        (["--resume", ".", "--replace"], "--resume and --replace; allowed: one of them"),
    ],
)
def test_what_cannot_be_run_is_refused(refused, arguments, message):
    assert message in refused("simulate", *arguments)


def test_a_failed_engine_is_one_line_and_exit_code_1(command, monkeypatch):
    def failing(*_):
        raise EngineError("the run ended as finished:failed")

    monkeypatch.setattr(simulate, "flower", failing)
    code, _, err = command("simulate", "--engine", "flower", "--preset", "none")
    assert code == 1
    assert err.splitlines()[-1] == "error: the run ended as finished:failed"


@pytest.mark.parametrize("engine", ["local", "fleet", "flower"])
def test_a_folder_in_which_a_run_goes_on_is_refused_before_any_work(
    engine, refused, taken, tmp_path, monkeypatch
):
    monkeypatch.setattr(pairs, "ensure", None)  # would fail: no work has begun
    taken(tmp_path / "run")
    arguments = ["--preset", "none", "--out", str(tmp_path / "run"), "--engine", engine]
    said = refused("simulate", *arguments)
    assert f"folder '{tmp_path / 'run'}' is in use by process {os.getpid()} on " in said


@pytest.mark.parametrize(
    ("arguments", "method"),
    [([], "cdc"), (["--method", "static"], "static"), (["--set", "run.method=static"], "static")],
)
def test_the_method_is_run_that_was_asked_for(command, monkeypatch, tmp_path, arguments, method):
    monkeypatch.chdir(tmp_path)

    def engine(config, *_):
        raise EngineError(f"{config.run.method} in {config.run.out_dir}")

    monkeypatch.setattr(simulate, "local", engine)
    _, _, err = command("simulate", *arguments)
    assert err.splitlines()[-1] == f"error: {method} in {tmp_path}/results/{method}-0"
