"""Bundles of devices, with agents in this process."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from PIL import Image

from cdc_flower.config import parse
from cdc_flower.setting import written
from cdc_flower.wire import keys as names
from cdc_flower.wire.messages import state_bytes
from clients.device import conditions, start
from clients.device.agent import Agent
from clients.device.answering import Student
from clients.device.conditions import Conditions
from clients.device.mailbox import Order
from clients.device.settings import FILE, Bundle, DeviceConfig
from experiments.deploy import bundle, keys

MakeBundle = Callable[..., Path]
OWN = {"feed": "stream", "http_port": 0, "wait": 60.0}


@pytest.fixture(autouse=True)
def a_machine_without_sensors(monkeypatch):
    """What holds samples back is a battery or a metered link; this host's do not count."""
    monkeypatch.setattr(conditions, "read", lambda state: Conditions())


@pytest.fixture(scope="session")
def cloud_folder(tmp_path_factory) -> Path:
    """A cloud with an authority, and nothing else."""
    cloud = tmp_path_factory.mktemp("cloud")
    keys.authority(cloud)
    return cloud


def made(cloud: Path, settings: Mapping[str, Any], number: int, **own: Any) -> Path:
    """The bundle of a device."""
    own = {**OWN, **own}
    config = parse(settings)
    parts, stream, _ = bundle.device_parts(config, own["feed"] == "stream")
    toml = written(DeviceConfig(number=number, **own))
    bundle.make(cloud, f"device-{number}", toml, settings, parts, stream, models=True)
    return cloud / "bundles" / f"device-{number}"


@pytest.fixture
def make_bundle(cloud_folder, tmp_path) -> MakeBundle:
    """`make_bundle(settings, number=0, feed="stream", ...)`: the bundle of a device, on its own machine."""

    def make(settings: Mapping[str, Any], number: int = 0, **own: Any) -> Path:
        return made(cloud_folder, settings, number, **own).rename(tmp_path / f"device-{number}")

    return make


@pytest.fixture(scope="session")
def device_settings(settings) -> dict[str, Any]:
    """Of a run of devices whose students are loaded once for all tests."""
    return {
        **settings,
        "run.rounds": 3,
        "run.receipts": True,
        "uplink.tokens-kept": 16,
        "uplink.budget": 900,
        "pair.max-answer-tokens": 3,
    }


@pytest.fixture(scope="session")
def one_bundle(cloud_folder, device_settings) -> Path:
    """A bundle that tests copy and do not write to."""
    return made(cloud_folder, device_settings, 0).rename(cloud_folder / "copied")  # `make_bundle` has others


@pytest.fixture(scope="session")
def student(one_bundle) -> Student:
    """Its models."""
    return Student.of(Bundle.of(one_bundle))


@pytest.fixture
def clip_bundle(make_bundle, clip_settings) -> Callable[..., Path]:
    """`clip_bundle(number=0, method="mmpg")`: of a device that reads clips of three frames from a folder."""

    def make(number: int = 0, **more: Any) -> Path:
        settings = clip_settings(**{"method": "mmpg", "run_receipts": True, **more})
        folder = make_bundle(settings, number, feed="folder", longest_question=20)
        (folder / "feed").mkdir(exist_ok=True)
        return folder

    return make


@pytest.fixture
def begin(one_bundle, student, tmp_path, monkeypatch) -> Iterator[Callable[..., Agent]]:
    """`begin()` is the agent of a device, again and again the same one, as if it had been killed before;
    `begin(feed="folder", ...)` with other settings of its own.
    """
    folder = tmp_path / "bundle"
    shutil.copytree(one_bundle, folder)
    monkeypatch.setattr(Student, "of", lambda of: replace(student, longest=of.device.longest_question))

    (folder / "feed").mkdir()

    with ExitStack() as held:

        def again(**own: Any) -> Agent:
            held.close()
            (folder / FILE).write_text(written(DeviceConfig(**{**OWN, **own})))
            return held.enter_context(start.opened(folder))

        yield again


@pytest.fixture
def picture() -> bytes:
    """An encoded picture."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 48, 3)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def order() -> Callable[..., Order]:
    """`order(round, taken=0, work="clients.cdc:work", **more)`: a TRAIN order for version 0."""

    def make(round: int, taken: int = 0, work: str = "clients.cdc:work", **more: Any) -> Order:
        said = {names.ROUND: round, names.WORK: work, names.VERSION: 0, names.TAKEN: taken, **more}
        return Order(round, state_bytes(RecordDict({names.CONFIG: ConfigRecord(said)})))

    return make
