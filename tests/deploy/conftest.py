"""A SuperLink and SuperNodes of Flower on this host, and runs on them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cdc_flower import programs
from cdc_flower.config import flat, parse
from cdc_flower.programs import BINARIES, free_port
from experiments.run import simulate
from experiments.run.processes import silent
from tests.deploy import certificates
from tests.deploy.secured import Secured


@pytest.fixture
def start_fleet(tmp_path):
    """`start_fleet({}, {})` starts a SuperLink and a SuperNode for each dict, which are added to the
    environment of that node; gives the environment for `flwr ... fleet`. All are stopped afterwards.
    """
    home, started = tmp_path / "flwr", []
    home.mkdir()

    def start(*nodes: Mapping[str, str]) -> dict[str, str]:
        port = free_port()
        (home / "config.toml").write_text(
            f'[superlink.fleet]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        environment = {**os.environ, **simulate.OFFLINE, **programs.environment(home)}
        superlink = ["flower-superlink", "--port", str(port), "--database", str(home / "state.db")]
        commands = [(superlink, environment)]
        for i, own in enumerate(nodes):
            config = f"partition-id={i} num-partitions={len(nodes)}"
            address = ["--superlink", f"127.0.0.1:{port}", "--port", str(free_port())]
            commands.append((["flower-supernode", *address, "--node-config", config], {**environment, **own}))
        for command, its_own in commands:
            log = home / f"{len(started)}.log"
            whole = [BINARIES / command[0], "--insecure", *command[1:]]
            with log.open("w") as said:
                started.append(
                    subprocess.Popen(whole, stdout=said, stderr=subprocess.STDOUT, env=its_own, cwd=tmp_path)
                )
            if len(started) == 1:
                why = silent(f"http://127.0.0.1:{port}", started[0].poll, simulate.START_SECONDS)
                assert not why, f"{why}: {log.read_text()}"
        return environment

    try:
        yield start
    finally:
        for process in reversed(started):
            simulate._end(process)


@pytest.fixture
def submit(tmp_path) -> Callable[[Mapping[str, object], Path, Mapping[str, str]], None]:
    """`submit(settings, out, environment)` starts a run on the fleet; its folder is `out`."""

    def run(settings: Mapping[str, object], out: Path, environment: Mapping[str, str]) -> None:
        (tmp_path / "run.toml").write_text(simulate.toml({**flat(parse(settings)), "run.out-dir": str(out)}))
        said = subprocess.run(
            [
                BINARIES / "flwr",
                "run",
                str(simulate.APP),
                "fleet",
                "--run-config",
                str(tmp_path / "run.toml"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert re.search(r"run (\d{6,})", said.stdout + said.stderr), said.stderr

    return run


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """See `Secured`; all its programs are killed afterwards."""
    folder = tmp_path_factory.mktemp("secured")
    fleet = Secured(folder, certificates.authority(folder, "ca"))
    certificates.server(folder, "server", fleet.authority)
    try:
        yield fleet
    finally:
        for program in reversed(fleet.programs):
            program.kill()
