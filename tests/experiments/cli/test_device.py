"""Claims about the commands `device ...`."""

from __future__ import annotations

import json
import signal

import pytest

from cdc_flower.setting import written
from clients.device import check, keeping
from clients.device.settings import DeviceConfig
from experiments.deploy import keys


def test_node_keeps_flowers_supernode_and_says_when_nothing_protects_it(command, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(keeping.Keeper, "keep", lambda self: kept.append((self.command(), self.home)))
    (tmp_path / "device.toml").write_text(written(DeviceConfig(number=1)))
    (tmp_path / "ca.crt").write_text("")
    keys.device(tmp_path, "device-1")
    before = signal.getsignal(signal.SIGTERM)
    assert command("device", "node", tmp_path) == (0, "", "")
    code, _, err = command("device", "node", tmp_path, "--insecure", "--port", 9100)
    assert (code, err.splitlines()[0][:20]) == (0, "warning: --insecure:")
    assert [argv[4] for (argv, _), _ in kept] == ["--root-certificates", "--insecure"]
    assert kept[0][1] == tmp_path / "supernode"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "device.toml").write_text("number = 3")
    return tmp_path


def test_check_says_each_thing_and_fails_where_one_does(command, bundle, monkeypatch):
    monkeypatch.setattr(check, "CHECKS", {"keys": lambda bundle: "", "disk": lambda bundle: "full"})
    code, out, _ = command("device", "check", str(bundle))
    assert (code, out.splitlines()) == (1, ["ok   keys", "FAIL disk: full"])
    monkeypatch.setattr(check, "CHECKS", {"keys": lambda bundle: ""})
    assert command("device", "check", str(bundle))[0] == 0


def test_status_reads_the_folder_alone(command, bundle):
    code, out, _ = command("device", "status", bundle)
    assert (code, out.splitlines()[0]) == (0, "device 3: agent does not run, version 0")
    said = json.loads(command("device", "status", bundle, "--json")[1])
    assert (said["device"], said["running"], said["samples"]) == (3, False, None)
    assert not (bundle / "state").exists()


def test_ask_says_that_no_agent_runs(command, bundle):
    (bundle / "device.toml").write_text("http-port = 0")
    image = bundle / "device.toml"
    code, _, err = command("device", "ask", bundle, "--image", image, "--question", "what?")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "'http-port' = 0" in err
    code, _, err = command("device", "ask", bundle, "--image", bundle / "absent", "--question", "what?")
    assert code == 2
    assert "absent" in err


@pytest.mark.parametrize("name", ["run", "check", "node", "status"])
def test_a_folder_that_is_no_bundle_is_refused(command, tmp_path, name):
    code, _, err = command("device", name, str(tmp_path))
    assert code == 2
    assert "has no device.toml" in err
    assert not (tmp_path / "state").exists()
