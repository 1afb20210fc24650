"""A device that cannot run is told so before it does."""

import re
import shutil
from types import SimpleNamespace

import pytest

from cdc_flower.config import ConfigError
from cdc_flower.setting import written
from clients.device import check
from clients.device.conditions import Conditions
from clients.device.settings import DeviceConfig


@pytest.fixture
def folder(one_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "conditions", lambda state: Conditions())
    monkeypatch.setattr(check, "SPARE", 0)
    monkeypatch.setattr(check.preflight.compressions, "preflight", lambda compression: None)
    monkeypatch.setattr(check.preflight.psutil, "virtual_memory", lambda: SimpleNamespace(available=16e9))
    shutil.copytree(one_bundle, tmp_path / "device")
    return tmp_path / "device"


def wrong(folder):
    return {about.partition(",")[0]: why for about, why in check.every(folder) if why}


def own(folder, **values):
    toml = written(DeviceConfig(**{"feed": "stream", "spool_bytes": 2**20, **values}))
    (folder / "device.toml").write_text(toml)


def lost(feed):
    feed.mkdir()
    (feed / "questions.jsonl").write_text('{"image": "lost.png", "question": "q"}\n' * 2)


def test_a_bundle_as_it_was_provisioned_is_right(folder):
    own(folder)
    assert wrong(folder) == {}


@pytest.mark.parametrize(
    ("spoil", "about", "says"),
    [
        (lambda f: (f / "device.key").chmod(0o644), "keys", "has mode 644; allowed: 600"),
        (lambda f: (f / "ca.crt").unlink(), "keys", "no '.*ca.crt'"),
        (lambda f: next(f.rglob("*.safetensors")).write_bytes(b"x"), "models", "is another file"),
        (lambda f: (f / "settings.json").write_text("[]"), "settings", "no run config"),
        (lambda f: (f / "settings.json").write_text('{"run.devices": 0}'), "settings", "run.devices"),
        (lambda f: own(f, superlink="cloud"), "settings", "allowed: host:port"),
        (lambda f: own(f, feed="folder"), "settings", "longest-question = 0"),
        (
            lambda f: own(f, feed="folder", feed_path="nowhere/below", longest_question=9),
            "feed",
            "No such file",
        ),
        (
            lambda f: own(f, feed="folder", longest_question=9) or lost(f / "feed"),
            "feed",
            "2 of the first 2 rows .*row 1: 'lost.png': No such file or directory in '.*/feed'",
        ),
        (lambda f: own(f, spool_bytes=2**40), "disk", "are free"),
        (
            lambda f: (f / "state").mkdir() or (f / "state/device.db").write_bytes(b"x" * 999),
            "database",
            "is damaged",
        ),
    ],
)
def test_what_is_wrong_is_named(folder, spoil, about, says):
    own(folder)
    spoil(folder)
    found = wrong(folder)
    assert about in found
    assert re.search(says, found[about])


def test_a_processor_that_cannot_multiply_is_named(folder, monkeypatch):
    own(folder)

    def fails(compression):
        raise ConfigError(f"setting 'pair.compression' = '{compression}': this processor cannot")

    monkeypatch.setattr(check.preflight.compressions, "preflight", fails)
    assert "'nf4'" in wrong(folder)["compressed products"]


def test_what_holds_samples_back_is_said(folder, monkeypatch):
    own(folder)
    monkeypatch.setattr(check, "conditions", lambda state: Conditions(metered=True))
    assert "the link is metered" in wrong(folder)["battery"]
