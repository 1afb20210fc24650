"""`flwr run .` gives the run that a LocalGrid gives: the same app through Flower's own engine, offline.

Slow: Flower starts a SuperLink, a simulation process and Ray actors that each import torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.programs import free_port
from strategies.run import run_local

REPOSITORY = Path(__file__).parents[2]
FLWR = Path(sys.executable).with_name("flwr")


@pytest.fixture
def environment(tmp_path: Path):
    """Flower with a home, ports and a cache of its own; its SuperLink is stopped afterwards."""
    home = tmp_path / "flwr"
    yield {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ADDRESS": "local",
        "PATH": f"{FLWR.parent}{os.pathsep}{os.environ['PATH']}",
    }
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if str(home) in line:  # the SuperLink names its database, which lies in this test's own folder
            os.kill(int(process.name), signal.SIGTERM)


def quoted(settings: dict) -> str:
    value = {bool: lambda v: str(v).lower(), str: lambda v: f'"{v}"'}
    return " ".join(f"{k}={value.get(type(v), str)(v)}" for k, v in settings.items())


MORE = [{}, {"run.method": "fedavg_lora"}, {"mode": "async", "buffer": 2, "in_flight": 2, "trace": "always"}]


@pytest.mark.slow
@pytest.mark.parametrize("more", MORE)
def test_flowers_simulation_engine_gives_the_same_ledger_as_a_local_grid(
    more, run_settings, environment, tmp_path
):
    same_on_flower(run_settings(devices=3, fail_devices="2:1", **more), environment, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mmpg", "mmpg_cdc"])
def test_generated_adapters_of_clips_are_the_same_on_flowers_engine(
    method, clip_settings, environment, tmp_path
):
    made = clip_settings(method=method, devices=3, rounds=2, **{"cloud.steps": 1})
    same_on_flower(made, environment, tmp_path)


def same_on_flower(settings, environment, tmp_path):
    """Run on both engines and compare."""
    app = tmp_path / "app"
    for part in (
        "cdc_flower",
        "strategies",
        "clients",
        "experiments",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    ):
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, app / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            app.mkdir(exist_ok=True)
            shutil.copy(source, app / part)
    local = results.read(run_local(parse(settings)))
    over_ray = {**settings, "run.out-dir": str(tmp_path / "ray")}
    started = subprocess.run(
        [
            FLWR,
            "run",
            str(app),
            "--stream",
            "--run-config",
            quoted(over_ray),
            "--federation-config",
            "num-supernodes=3 client-resources-num-cpus=1",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    said = started.stdout + started.stderr
    run_id = re.search(r"run (\d{6,})", said)
    assert run_id, said[-3000:]
    end = time.monotonic() + 120
    while not (tmp_path / "ray" / "run.json").exists() and time.monotonic() < end:
        time.sleep(1)
    assert (tmp_path / "ray" / "run.json").exists(), said[-5000:]
    theirs = results.read(tmp_path / "ray")
    assert theirs.status == "completed"
    assert theirs.run["ledger_digest"] == local.run["ledger_digest"]
    assert theirs.run["accuracy"] == local.run["accuracy"]
    assert theirs.rounds.equals(local.rounds)
    assert json.loads((tmp_path / "ray" / "config.json").read_text())["engine"] != "LocalGrid"
