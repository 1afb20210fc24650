"""The SuperLink's files and command; that it works with real processes is seen in tests/deploy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import psutil
import pytest
from cryptography.hazmat.primitives import serialization

from experiments.deploy import keys
from experiments.deploy.superlink import APP, SuperLink, SuperLinkError
from strategies.served.settings import VARIABLE


def test_what_it_reads_is_written_anew_and_no_key_signs_another(tmp_path):
    link = SuperLink(tmp_path, 4242)
    link.prepare({"run.seed": 3})
    link.prepare({"run.seed": 4})
    home = tmp_path / "superlink"
    connection = tomllib.loads((home / "config.toml").read_text())["superlink"]
    assert connection["cloud"] == {"address": "127.0.0.1:4242", "root-certificates": str(link.ca)}
    assert json.loads((home / "run-config.json").read_text()) == {"run.seed": 4}
    assert link.environment[VARIABLE] == str(home / "run-config.json")
    assert not (home / "tls" / "ca" / "ca.key").exists()
    assert (home / "tls" / "server.key").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o077 == 0
    assert "--enable-supernode-auth" in link.program.command
    assert "--insecure" not in link.program.command
    assert link.program.command[1:5] == ["--host", "127.0.0.1", "--port", "4242"]


def test_without_keys_only_where_it_is_said(tmp_path):
    link = SuperLink(tmp_path, 4242, insecure=True)
    link.prepare({})
    assert "--insecure" in link.program.command
    assert "--enable-supernode-auth" not in link.program.command
    assert (link.url, link.ca) == ("http://127.0.0.1:4242", None)


def test_the_app_that_devices_fetch_holds_no_setting_and_no_path():
    assert "config" not in tomllib.loads(APP["pyproject.toml"])["tool"]["flwr"]["app"]
    assert sum(map(len, APP.values())) < 1000


def test_what_an_earlier_start_left_running_is_ended_and_nobody_else(tmp_path):
    def left(more):
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        process = subprocess.Popen(command)
        began = psutil.Process(process.pid).create_time() + more
        (tmp_path / "superlink.json").write_text(json.dumps({"pid": process.pid, "began": began}))
        return process

    link = SuperLink(tmp_path.parent / tmp_path.name, 4242)
    link.home = tmp_path
    mine, other = left(0), None
    try:
        link._end_earlier()
        mine.wait(10)
        other = left(99)  # a process that got the number since
        link._end_earlier()
        assert other.poll() is None
    finally:
        for process in filter(None, (mine, other)):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("prints", "says"),
    [
        ('{"success": false, "error-message": "no such run"}', "`flwr ls cloud` was refused: no such run"),
        ("oops", "`flwr ls cloud` failed: oops"),
        ("", "`flwr ls cloud` failed: "),
    ],
)
def test_what_flwr_refuses_is_one_line(prints, says, tmp_path, monkeypatch):
    flwr = tmp_path / "flwr"
    flwr.write_text(f"#!/bin/sh\nprintf '%s' '{prints}'\n")
    os.chmod(flwr, 0o700)
    monkeypatch.setattr("experiments.deploy.superlink.BINARIES", tmp_path)
    link = SuperLink(tmp_path, 4242)
    link.home.mkdir()
    with pytest.raises(SuperLinkError) as caught:
        link.status("7")
    assert str(caught.value) == says


@pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")  # Flower's, of alembic
def test_the_keys_of_its_nodes_are_found_where_flower_keeps_them(tmp_path):
    from flwr.server.superlink.linkstate.linkstate_factory import LinkStateFactory
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.superlink.federation import NoOpFederationManager

    link = SuperLink(tmp_path, 4242)
    with pytest.raises(SuperLinkError, match="cannot be read: unable to open"):
        link.keys()
    link.home.mkdir()
    database = str(link.home / "state.db")
    state = LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database)).state()
    lines = {}
    for number in range(8):  # ids are 64 bits: some are negative in the file
        (tmp_path / str(number)).mkdir()
        line = keys.device(tmp_path / str(number), "comment")
        key = serialization.load_ssh_public_key(line.encode())
        lines[state.create_node("", "", public_key_to_bytes(key), 30.0)] = line.removesuffix(" comment")
    assert link.keys() == lines
