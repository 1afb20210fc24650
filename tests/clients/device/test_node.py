"""Claims about how Flower's SuperNode is started for a device."""

from __future__ import annotations

import sys
import tomllib

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.setting import written
from clients.device.node import command
from clients.device.settings import Bundle, DeviceConfig
from experiments.deploy import keys


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "roof 1"
    place.mkdir()
    (place / "device.toml").write_text(written(DeviceConfig(number=3, superlink="cloud.example:9443")))
    (place / "ca.crt").write_text("")
    keys.device(place, "roof")
    return place


def test_it_is_told_the_clouds_place_the_keys_and_whose_bundle_this_is(folder):
    argv, environment = command(Bundle.of(folder))
    given = dict(zip(argv[4::2], argv[5::2], strict=True))
    assert argv[:4] == [sys.executable, "-P", "-m", "clients.device.supernode"]
    assert given["--superlink"] == "cloud.example:9443"
    assert given["--root-certificates"] == str(folder / "ca.crt")
    assert given["--auth-supernode-private-key"] == str(folder / "device.key")
    assert tomllib.loads(given["--node-config"].replace("=", " = ", 1)) == {"bundle": str(folder)}
    assert int(given["--port"]) > 0
    assert environment["FLWR_HOME"] == str(folder / "supernode")
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert (folder / "supernode").stat().st_mode & 0o777 == 0o700


def test_without_tls_there_is_no_key(folder):
    (folder / "device.key").unlink()
    argv, _ = command(Bundle.of(folder), 9100, insecure=True)
    assert "--insecure" in argv
    assert not any("key" in word or "certificates" in word for word in argv)
    assert argv[argv.index("--port") + 1] == "9100"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: (f / "device.key").chmod(0o644), "mode 644"),
        (lambda f: (f / "device.key").unlink(), "device.key' is not there"),
        (lambda f: (f / "ca.crt").unlink(), "ca.crt' is not there"),
    ],
)
def test_a_bundle_that_lost_its_keys_or_shows_them_is_refused(folder, change, named):
    change(folder)
    with pytest.raises(ConfigError, match=named):
        command(Bundle.of(folder))


def test_a_path_that_flower_cannot_read_is_refused(folder):
    odd = folder.rename(folder.with_name('a"b'))
    with pytest.raises(ConfigError, match="quotes"):
        command(Bundle.of(odd))
