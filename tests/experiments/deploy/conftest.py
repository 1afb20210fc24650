"""A cloud with a pair of models of a few bytes: provisioning reads none of them."""

from __future__ import annotations

import json

import pytest

from experiments.deploy import bundle, provision


@pytest.fixture
def parts(monkeypatch):
    """The longest question is a number: data and models are not loaded for it."""

    def found(config, stream):
        from cdc_flower.models.folders import device_files

        assert not stream
        return device_files(config.pair, config.data.name), {}, 17

    monkeypatch.setattr(bundle, "device_parts", found)


@pytest.fixture
def pair(tmp_path):
    """A pair folder; of the teacher there must be nothing on a device."""
    for name in (
        "pair.json",
        "student/config.json",
        "student/model.safetensors",
        "teacher/model.safetensors",
    ):
        path = tmp_path / "pair" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": "few bytes", "digest": "0" * 64, "of": name}))
    return tmp_path / "pair"


@pytest.fixture
def cloud(tmp_path, pair, parts):
    folder = tmp_path / "cloud"
    settings = {"run.devices": 3, "pair.folder": str(pair)}
    provision.init(folder, settings, ["localhost", "10.0.0.2"], {"port": 9555})
    return folder
