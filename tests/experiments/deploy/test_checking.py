"""Settings are read before anything starts, once for each that they are."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest

from cdc_flower.config import ConfigError
from experiments.deploy import checking, cloud, provision
from experiments.deploy.settings import CloudConfig
from strategies.served.settings import FOLDER


def test_the_apps_run_config_has_the_clouds_own_part(tmp_path):
    found = checking.run_config(tmp_path, CloudConfig(period=4.0), {"run.seed": 3})
    assert (found["run.seed"], found["served.period"], found[FOLDER]) == (3, 4.0, str(tmp_path))
    assert "served.port" not in found


def made(tmp_path, **own):
    provision.init(tmp_path / "cloud", {"run.devices": 2}, ["localhost"], own)
    return tmp_path / "cloud"


def test_what_provision_read_is_not_read_again_and_what_was_changed_since_is(tmp_path, monkeypatch):
    folder, asked = made(tmp_path), []

    def run(*args, **how):
        asked.append(json.loads(how["input"]))
        return subprocess.CompletedProcess(args, 1, "", "a warning\nsetting 'x' = 1; allowed: 2\n")

    monkeypatch.setattr(checking.subprocess, "run", run)
    good = checking.run_config(folder, CloudConfig(hosts="localhost"), provision.settings_of(folder))
    checking.check(folder, good)
    checking.check(folder, {**good, FOLDER: "/elsewhere"})
    assert not asked
    for more in ({"run.seed": 5}, {"served.period": 1.0}):
        with pytest.raises(ConfigError, match=r"^setting 'x' = 1; allowed: 2$"):
            checking.check(folder, {**good, **more})
    assert len(asked) == 2
    (folder / checking.FILE).write_bytes(b"\xff")  # it remembers nothing
    with pytest.raises(ConfigError):
        checking.check(folder, good)


def test_provision_refuses_rounds_that_the_method_cannot_play(tmp_path):
    with pytest.raises(ConfigError, match="allowed: sync"):
        provision.init(tmp_path / "c", {"run.method": "static"}, ["localhost"], {"rounds": "buffer"})
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_a_cloud_whose_settings_were_spoilt_starts_nothing(tmp_path):
    """Slow: each process that reads them loads torch."""
    folder = made(tmp_path, page_port=0)
    settings = provision.settings_of(folder)
    (folder / provision.SETTINGS).write_text(json.dumps({**settings, "fedavg.epochs": 0}))
    with pytest.raises(ConfigError, match=r"setting 'fedavg.epochs' = 0") as wrong:
        cloud.up(folder, threading.Event(), print)
    assert "\n" not in str(wrong.value)
    assert not (folder / "superlink").exists()
    (folder / provision.SETTINGS).write_text(json.dumps({**settings, "run.seed": 9}))
    checking.check(folder, checking.run_config(folder, CloudConfig(), provision.settings_of(folder)))
    assert (folder / checking.FILE).exists()
