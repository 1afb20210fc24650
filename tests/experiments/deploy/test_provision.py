"""Claims about a cloud's folder and the devices in it, from the first key to the last."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.disk import DiskError
from clients.device.settings import Bundle
from experiments.deploy import keys, provision
from experiments.deploy.settings import cloud as settings_of
from strategies.served import devices


def test_a_cloud_has_its_settings_and_those_of_the_run(cloud, pair):
    own = settings_of(cloud)
    assert (own.named, own.port) == (("localhost", "10.0.0.2"), 9555)
    config = provision.config_of(cloud)
    assert config.run.receipts
    assert (config.run.devices, config.pair.folder) == (3, str(pair))
    assert devices.read(cloud) == {}


def test_a_folder_that_holds_anything_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("text")
    with pytest.raises(ConfigError, match="is not empty"):
        provision.init(tmp_path, {}, ["localhost"], {})
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("settings", "hosts", "own", "named"),
    [
        ({"run.method": "fedavg_lora"}, ["a"], {}, "learn from labels"),
        ({"run.rounds": 0}, ["a"], {}, "run.rounds"),
        ({}, ["a b"], {}, "host 'a b'"),
        ({}, ["a"], {"port": 0}, "'port' = 0"),
    ],
)
def test_a_cloud_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, settings, hosts, own, named):
    with pytest.raises(ConfigError, match=named):
        provision.init(tmp_path / "cloud", settings, hosts, own)
    assert list(tmp_path.iterdir()) == []


def test_devices_get_the_next_number_or_the_one_that_is_asked_for_up_to_run_devices(cloud):
    assert provision.device(cloud)[0] == 0
    assert provision.device(cloud, number=2, name="roof")[0] == 2
    assert provision.device(cloud)[0] == 1
    with pytest.raises(ConfigError, match="'run.devices' = 3"):
        provision.device(cloud)
    assert [(n, d.name, d.status) for n, d in devices.read(cloud).items()] == [
        (0, "device-0", "made"),
        (1, "device-1", "made"),
        (2, "roof", "made"),
    ]


def test_device_toml_says_who_and_where_and_how_long_a_question_may_be(cloud):
    _, made = provision.device(cloud, own={"feed": "camera", "feed-path": "/var/spool", "http-port": "8481"})
    own = Bundle.of(made).device
    assert (own.number, own.name, own.superlink) == (0, "device-0", "localhost:9555")
    assert (own.feed, own.feed_path, own.http_port, own.longest_question) == (
        "camera",
        "/var/spool",
        8481,
        17,
    )
    assert not (made / "feed").exists()
    other = Bundle.of(provision.device(cloud, host="10.0.0.2")[1])
    assert other.device.superlink == "10.0.0.2:9555"
    assert other.feed.is_dir()


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"number": 0}, "device 0 is there, made"),
        ({"name": "kitchen"}, "is that of device 0"),
        ({"name": "../x"}, "name '../x'"),
        ({"name": "x" * 41}, "up to 40"),
        ({"name": "kitchen.tar.gz"}, "no '.tar.gz' last"),  # where the archive of another is
        ({"host": "elsewhere"}, "host 'elsewhere'"),
        ({"number": 3}, "up to 2"),
        ({"own": {"feed": "radio"}}, "'feed' = 'radio'"),
        ({"own": {"spool-samples": "many"}}, "'spool-samples' = 'many'"),
        ({"own": {"colour": 1}}, "unknown setting 'colour' of a device"),
    ],
)
def test_a_device_that_cannot_be_is_refused(cloud, asked, named):
    provision.device(cloud, name="kitchen")
    before = (cloud / "devices.json").read_text()
    with pytest.raises(ConfigError, match=named):
        provision.device(cloud, **asked)
    assert (cloud / "devices.json").read_text() == before


def test_a_revoked_device_stays_in_the_list_and_its_bundle_is_gone(cloud):
    _, made = provision.device(cloud)
    provision.revoke(cloud, 0)
    assert devices.read(cloud)[0].status == "revoked"
    assert not made.exists()
    assert not made.with_name("device-0.tar.gz").exists()
    with pytest.raises(ConfigError, match="device 0 is there, revoked"):
        provision.device(cloud, number=0)
    with pytest.raises(ConfigError, match="device 0 is revoked"):
        provision.rotate(cloud, 0)
    with pytest.raises(ConfigError, match="no device 7"):
        provision.revoke(cloud, 7)


def test_a_rotated_device_has_another_key_and_the_old_one_is_one_that_nobody_must_know(cloud):
    _, made = provision.device(cloud)
    first, files = devices.read(cloud)[0], {p.name for p in made.iterdir()}
    assert provision.rotate(cloud, 0) == made
    second = devices.read(cloud)[0]
    assert {p.name for p in made.iterdir()} == files  # it may not have been copied yet
    with tarfile.open(made.with_name("device-0.tar.gz")) as packed:
        public = packed.extractfile("device-0/device.key.pub")
        assert public is not None
        assert public.read().decode().split()[:2] == second.public_key.split()[:2]
    assert [p for p in made.parent.iterdir() if p.name.startswith(".")] == []
    assert second.public_key != first.public_key
    assert second.revoked == ()  # the SuperLink never knew the first
    with devices.changing(cloud) as known:
        known[0] = devices.Device(**{**vars(second), "node_id": 77, "status": "registered"})
    shutil.rmtree(made)
    made = provision.rotate(cloud, 0)
    assert [k.node_id for k in devices.read(cloud)[0].revoked] == [77]
    assert devices.read(cloud)[0].status == "made"
    assert sorted(p.name for p in made.iterdir()) == ["ca.crt", "device.key", "device.key.pub"]


def test_an_interrupted_rotation_of_the_server_is_done_by_another(cloud, monkeypatch):
    real, moved = Path.replace, []

    def once(self, target):
        moved.append(target)
        if len(moved) == 2:
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as during:
        during.setattr(Path, "replace", once)
        with pytest.raises(DiskError):
            provision.rotate_server(cloud)
    with pytest.raises(ConfigError, match=f"provision rotate {cloud} server"):
        keys.check_server(cloud)
    provision.rotate_server(cloud)
    keys.check_server(cloud)


def test_a_rotated_server_is_vouched_for_by_the_same_authority(cloud):
    before = [(cloud / name).read_bytes() for name in ("server.key", "server.crt", "ca/ca.crt")]
    provision.rotate_server(cloud)
    after = [(cloud / name).read_bytes() for name in ("server.key", "server.crt", "ca/ca.crt")]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
    assert keys.until(cloud)
    assert (cloud / "server.key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in cloud.iterdir() if p.name.startswith(".server")] == []


def test_settings_of_a_run_that_cannot_be_used_are_refused(cloud):
    (cloud / "settings.json").write_text(json.dumps({"run.roundz": 1}))
    with pytest.raises(ConfigError, match="run.rounds"):
        provision.config_of(cloud)
    (cloud / "settings.json").write_text("[]")
    with pytest.raises(ConfigError, match="no JSON object"):
        provision.config_of(cloud)


def test_a_key_is_revoked_without_torch(cloud):
    provision.device(cloud)
    code = (
        "import sys; from experiments.cli.app import app; from pathlib import Path\n"
        f"for words in (['revoke', {str(cloud)!r}, '0'], ['list', {str(cloud)!r}]):\n"
        "    app(['provision', *words], standalone_mode=False)\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert devices.read(cloud)[0].status == "revoked"
