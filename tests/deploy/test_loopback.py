"""The app on Flower's deployment engine, two SuperNodes on this host: the ledger of a grid in this process.

Slow: Flower starts a process for every message, and each imports torch.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdc_flower import results
from cdc_flower.config import flat, parse
from experiments.run import simulate
from strategies.run import run_local

BINARIES = Path(sys.executable).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def fleet(tmp_path):
    """A SuperLink and two SuperNodes, stopped afterwards; gives the environment for `flwr ... fleet`."""
    home, port = tmp_path / "flwr", free_port()
    home.mkdir()
    (home / "config.toml").write_text(f'[superlink.fleet]\naddress = "127.0.0.1:{port}"\ninsecure = true\n')
    path = f"{BINARIES}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **simulate.OFFLINE, "FLWR_HOME": str(home), "PATH": path}
    commands = [["flower-superlink", "--port", str(port), "--database", str(home / "state.db")]] + [
        [
            "flower-supernode",
            "--superlink",
            f"127.0.0.1:{port}",
            "--port",
            str(free_port()),
            "--node-config",
            f"partition-id={i} num-partitions=2",
        ]
        for i in (0, 1)
    ]
    started = []
    try:
        for command in commands:
            with (home / f"{len(started)}.log").open("w") as log:
                whole = [BINARIES / command[0], "--insecure", *command[1:]]
                started.append(
                    subprocess.Popen(
                        whole, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path
                    )
                )
            if len(started) == 1:
                simulate._healthy(started[0], port, home / "0.log")
        yield environment
    finally:
        for process in reversed(started):
            simulate._end(process)


@pytest.mark.slow
def test_two_supernodes_give_the_ledger_of_a_local_grid_without_a_teacher(
    run_settings, fleet, pair_folder, tmp_path
):
    """The server opens the teacher before the first round; from then on nobody can."""
    settings = run_settings(method="cdc", devices=2, rounds=2)
    local = results.read(run_local(parse(settings)))
    out = tmp_path / "deployed"
    (tmp_path / "run.toml").write_text(simulate.toml({**flat(parse(settings)), "run.out-dir": str(out)}))
    started = subprocess.run(
        [BINARIES / "flwr", "run", str(simulate.APP), "fleet", "--run-config", str(tmp_path / "run.toml")],
        env=fleet,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert re.search(r"run (\d{6,})", started.stdout + started.stderr), started.stderr
    end = time.monotonic() + 400
    teacher, away = pair_folder / "teacher", pair_folder / "nobody-s teacher"
    try:
        while not (out / "run.json").exists() and time.monotonic() < end:
            time.sleep(0.1)
            if teacher.exists() and (out / "config.json").exists():
                teacher.rename(away)
        assert away.exists()
    finally:
        if away.exists():
            away.rename(teacher)
    deployed = results.read(out)
    assert deployed.status == "completed"
    assert deployed.run["ledger_digest"] == local.run["ledger_digest"]
    assert deployed.run["accuracy"] == local.run["accuracy"]
    assert json.loads((out / "config.json").read_text())["engine"] != "LocalGrid"
