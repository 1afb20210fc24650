"""A run that cannot be made, or not resumed like this, is refused in one line."""

import pytest

from experiments.run import simulate
from experiments.run.simulate import EngineError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "magic"], "setting 'run.method' = 'magic'"),
        (
            ["--ray-address", "x:1", "--workers", "2"],
            "--workers, --ray-address with --engine local; allowed: --engine fleet",
        ),
        (["--resume", "nowhere"], "config.json is missing"),
        (["--resume", "x", "--method", "cdc"], "--method with --resume: a run goes on with its own"),
        (["--resume", "x", "--out", "y"], "--out with --resume"),
        (["--resume", "x", "--data", "emoji"], "--data with --resume"),
        (["--resume", "x", "--preset", "none"], "--preset with --resume"),
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
