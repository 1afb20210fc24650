"""Claims about conditions: a file's word goes before the system's, nonsense holds nothing back."""

from __future__ import annotations

import json
import logging
import stat
from types import SimpleNamespace

import pytest

from clients.device import conditions
from clients.device.conditions import BackpressureConfig, Conditions, may_send, read

ALL = {"battery": 0.5, "charging": False, "temperature": 41.5, "metered": False}


@pytest.fixture
def silent(monkeypatch):
    """A system that knows nothing."""
    monkeypatch.setattr(conditions.psutil, "sensors_battery", lambda: None)
    monkeypatch.setattr(conditions.psutil, "sensors_temperatures", dict)
    monkeypatch.setenv("PATH", "")


def test_a_file_says_instead_of_the_system(tmp_path, silent):
    assert read(tmp_path) == Conditions()
    (tmp_path / conditions.FILE).write_text(json.dumps(ALL))
    assert read(tmp_path) == Conditions(0.5, False, 41.5, False)
    (tmp_path / conditions.FILE).write_text('{"metered": true}')
    assert read(tmp_path) == Conditions(metered=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{",
        '{"battery": 20}',
        '{"battery": NaN}',
        '{"battery": true}',
        '{"metered": "yes"}',
        '{"x": 1}',
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_a_line_and_holds_nothing_back(tmp_path, silent, caplog, text):
    (tmp_path / conditions.FILE).write_text(text)
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path) == Conditions()
    assert len(caplog.text.splitlines()) == 1


def test_what_the_system_says(tmp_path, silent, monkeypatch):
    plugged = SimpleNamespace(percent=37.0, power_plugged=True)
    hot = {"cpu": [SimpleNamespace(current=55.0), SimpleNamespace(current=255.0)]}  # the second is none
    monkeypatch.setattr(conditions.psutil, "sensors_battery", lambda: plugged)
    monkeypatch.setattr(conditions.psutil, "sensors_temperatures", lambda: hot)
    monkeypatch.setenv("PATH", str(tmp_path))
    bus = tmp_path / "busctl"
    for said, metered in (("u 1", True), ("u 4", False), ("u 0", None), ("", None)):
        bus.write_text(f"#!/bin/sh\necho '{said}'\n")
        bus.chmod(bus.stat().st_mode | stat.S_IXUSR)
        assert read(tmp_path) == Conditions(0.37, True, 55.0, metered)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (Conditions(), ""),
        (Conditions(battery=0.19, charging=False), "battery at 19%"),
        (Conditions(battery=0.19), "battery at 19%"),
        (Conditions(battery=0.19, charging=True), ""),
        (Conditions(battery=0.2), ""),
        (Conditions(temperature=85.5), "above 85"),
        (Conditions(temperature=85.0), ""),
        (Conditions(metered=True), "metered"),
    ],
)
def test_limits(now, why):
    found = may_send(BackpressureConfig(), now)
    assert why in found
    assert bool(found) == bool(why)


def test_a_metered_link_may_be_used_where_the_owner_says_so():
    assert may_send(BackpressureConfig(metered=True), Conditions(metered=True)) == ""
