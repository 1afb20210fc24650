"""Claims about the commands `provision ...`: one line of what was made, one line of what is wrong."""

from __future__ import annotations

import json
import shutil

import pytest

from cdc_flower.models.folders import device_files
from experiments.deploy import bundle


@pytest.fixture(autouse=True)
def _no_data(monkeypatch):
    """The longest question is a number: data and models are not loaded for it."""
    monkeypatch.setattr(bundle, "device_parts", lambda c, _: (device_files(c.pair, c.data.name), {}, 17))


@pytest.fixture
def cloud(command, tmp_path):
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "student").mkdir()
    for name in ("pair.json", "student/model.safetensors"):
        (tmp_path / "pair" / name).write_text("{}")
    (tmp_path / "run.toml").write_text(f"[run]\ndevices = 5\n[pair]\nfolder = {str(tmp_path / 'pair')!r}\n")
    made = tmp_path / "cloud"
    code, out, err = command(
        *("provision", "init", made, "--settings", tmp_path / "run.toml", "--set", "run.devices=2"),
        *("--host", "cloud.example.org", "--host", "10.0.0.2", "--port", 9000),
    )
    assert (code, err) == (0, "")
    assert out.startswith(f"cloud: {made}; certificate for cloud.example.org, 10.0.0.2 until 20")
    return made


def test_a_device_is_made_listed_given_another_key_and_revoked(command, cloud):
    made = cloud / "bundles" / "roof"
    code, out, _ = command(
        *("provision", "device", cloud, "--name", "roof", "--feed", "camera:/var/spool/cdc"),
        *("--set", "http-port=8481"),
    )
    assert (code, out) == (0, f"device 0: {made}.tar.gz\n")
    text = (made / "device.toml").read_text()
    assert 'superlink = "cloud.example.org:9000"' in text
    assert 'feed = "camera"' in text
    assert 'feed-path = "/var/spool/cdc"' in text
    assert "http-port = 8481" in text
    key = (made / "device.key").read_text()
    code, out, _ = command("provision", "rotate", cloud, "0")
    assert (code, out.split(";")[0]) == (0, f"device 0: {made}.tar.gz has the new key")
    assert "unpack roof/device.key and roof/device.key.pub alone" in out
    assert (made / "device.key").read_text() != key
    assert (made / "device.toml").read_text() == text
    shutil.rmtree(made)
    (cloud / "bundles" / "roof.tar.gz").unlink()
    code, out, err = command("provision", "rotate", cloud, "0")
    assert (code, out, err) == (0, f"device 0: unpack {made}.tar.gz over its bundle\n", "")
    assert command("provision", "revoke", cloud, "0")[:2] == (0, "device 0 (roof) is revoked\n")
    code, out, _ = command("provision", "list", cloud, "--json")
    assert [(d["number"], d["name"], d["status"]) for d in json.loads(out)] == [(0, "roof", "revoked")]
    code, out, _ = command("provision", "list", cloud)
    assert "roof" in out
    assert command("provision", "rotate", cloud, "server")[1].startswith("server certificate until 20")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["rotate", "CLOUD", "x"], "NUMBER|server"),
        (["rotate", "CLOUD", "٣"], "NUMBER|server"),
        (["rotate", "CLOUD", "7"], "no device 7"),
        (["revoke", "CLOUD", "7"], "no device 7"),
        (["device", "CLOUD", "--number", "2"], "'run.devices' = 2"),
        (["device", "CLOUD", "--host", "elsewhere"], "host 'elsewhere'"),
        (["device", "CLOUD", "--feed", "radio:/x"], "'feed' = 'radio'"),
        (["device", "CLOUD", "--set", "http-port"], "allowed: key=value"),
        (["init", "CLOUD"], "is not empty"),
        (["list", "."], "cloud.toml"),
    ],
)
def test_what_cannot_be_is_one_line(command, cloud, words, named):
    code, out, err = command("provision", *(str(cloud) if word == "CLOUD" else word for word in words))
    lines = [line for line in err.splitlines() if not line.startswith("preset ")]
    assert (code, out, len(lines)) == (2, "", 1)
    assert named in lines[0]
