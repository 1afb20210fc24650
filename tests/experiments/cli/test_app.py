"""What a person types ends in one line that helps, and the right exit code."""

import subprocess
import sys
from pathlib import Path

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


def test_version(command):
    code, out, _ = command("--version")
    assert code == 0
    assert out.startswith("cdc-flower ")
