"""What a person types ends in one line that helps, and the right exit code."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import app
from tests import documents

ROOT = Path(__file__).parents[3]


def test_help_lists_the_commands_and_loads_nothing_slow():
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


@pytest.mark.parametrize("name", app.EXAMPLES)
def test_help_ends_with_an_example_that_can_be_typed(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert out.splitlines()[-1].strip() == f"Example: {app.EXAMPLES[name]}"
    assert app.EXAMPLES[name].startswith(f"cdc-flower {name} ")
    assert documents.wrong(shlex.split(app.EXAMPLES[name])) == ""


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_told_otherwise(command, monkeypatch, before, after):
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    command("--version")
    assert os.environ["OMP_WAIT_POLICY"] == after


def test_version(command):
    code, out, _ = command("--version")
    assert code == 0
    assert out.startswith("cdc-flower ")
