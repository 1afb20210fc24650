"""A run that cannot be made, or not resumed like this, is refused in one line."""

import os

import pytest

from cdc_flower.config import parse
from cdc_flower.run_folder import RunFolder
from experiments.cli.checked import program
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


@pytest.mark.parametrize("options", [[], ["--replace"]])
def test_a_checkpoint_and_a_comparison_are_no_folders_for_a_run(options, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "ensure", None)  # would fail: no work has begun
    for name, file in (("llava", "config.json"), ("emoji", "comparison.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"model_type": "llava"}')
        said = refused("simulate", "--preset", "none", "--out", name, *options)
        assert said.endswith(
            "holds something else; allowed: a new or empty folder, or that of an earlier run"
        )
        assert [path.name for path in (tmp_path / name).iterdir()] == [file]


def test_who_holds_a_folder_is_said_of_a_run_that_goes_on_there(begun, refused, taken, tmp_path):
    taken(begun(tmp_path / "run", rounds=2))
    said = refused("simulate", "--preset", "none", "--out", "run")
    assert f"folder '{tmp_path / 'run'}' is in use by process {os.getpid()} on " in said


@pytest.fixture
def begun():
    """`begun(folder, rounds)`: a run of so many rounds that did not end; the folder."""

    def call(folder, rounds, of=9, **changes):
        run = RunFolder(folder)
        run.begin(parse({"run.rounds": of, "run.out-dir": str(folder), **changes}), {}, {})
        for number in range(rounds + 1):
            run.round(number, {"source": 0.5}, {}, {})
        return folder

    return call


def interrupted(monkeypatch, before=lambda config: None):
    """The local engine is interrupted; `before` is what it had done."""

    def engine(config, *_):
        before(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "local", engine)


@pytest.mark.parametrize("replace", [[], ["--replace"]])
def test_a_run_that_was_interrupted_before_it_began_claims_no_rounds(
    replace, begun, command, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    if replace:
        begun(tmp_path / "run", rounds=3)
    interrupted(monkeypatch)
    code, _, err = command("simulate", "--preset", "none", "--out", "run", *replace)
    assert code == 130
    assert err.splitlines()[-1] == "interrupted: no round was done yet; give the same command again"
    assert (tmp_path / "run").exists() == bool(replace)


def test_a_run_that_was_interrupted_says_its_own_rounds_and_what_goes_on(
    begun, command, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    begun(tmp_path / "my  run", rounds=3)
    interrupted(monkeypatch, lambda config: begun(tmp_path / "my  run", rounds=2))
    _, _, err = command("simulate", "--preset", "none", "--out", "my  run", "--replace")
    assert err.splitlines()[-2].endswith("interrupted: 2 rounds are in 'my run'; this goes on:")
    assert err.splitlines()[-1] == f"{program()} simulate --resume 'my  run'"
    interrupted(monkeypatch)
    _, _, err = command("simulate", "--resume", "my  run", "--set", "run.rounds=11")
    assert err.splitlines()[-2].endswith("interrupted: 2 rounds are in 'my run'; this goes on:")
    assert err.splitlines()[-1] == f"{program()} simulate --resume 'my  run' --set run.rounds=11"


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
