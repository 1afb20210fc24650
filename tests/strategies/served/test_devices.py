"""Claims about the list of devices."""

from __future__ import annotations

import json
import os
import threading

import pytest

from cdc_flower.config import ConfigError
from strategies.served import devices
from strategies.served.devices import Device, Key


def one(name="device-0", **other):
    return Device("ecdsa AAAA", "SHA256:x", 2**63 + 5, "2026-11-26T00:00:00+00:00", name, **other)


def test_a_list_is_read_as_it_was_written(tmp_path):
    old = Key("ecdsa BBBB", "SHA256:y", 7)
    with devices.changing(tmp_path) as known:
        known[2] = one("c", status="registered", old=(old,))
        known[0] = one()
    assert devices.read(tmp_path) == {0: one(), 2: one("c", status="registered", old=(old,))}
    entry = json.loads((tmp_path / "devices.json").read_text())["2"]
    assert (entry["node-id"], entry["public-key"], entry["status"]) == (2**63 + 5, "ecdsa AAAA", "registered")


def test_the_keys_that_nobody_must_know_are_those_of_the_revoked_and_those_of_before():
    old = Key("ecdsa BBBB", "SHA256:y", 7)
    assert one(old=(old,)).revoked == (old,)
    assert [k.node_id for k in one(status="revoked", old=(old,)).revoked] == [7, 2**63 + 5]


def test_what_raises_changes_nothing(tmp_path):
    def change():
        with devices.changing(tmp_path) as known:
            known[0] = one()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change()
    assert devices.read(tmp_path) == {}


def test_two_who_change_it_wait_for_one_another(tmp_path):
    def add(number):
        with devices.changing(tmp_path) as known:
            known[number] = one(f"device-{number}")

    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(devices.read(tmp_path)) == list(range(8))


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"x": {}}', '{"0": 5}', '{"0": {"name": "a"}}', '{"0": {"status": "lost"}}', "\udcff"],
)
def test_what_is_no_list_is_refused(tmp_path, text):
    (tmp_path / "devices.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"devices\.json"):
        devices.read(tmp_path)


def test_who_changes_it_is_waited_for_and_not_for_ever(tmp_path):
    with (
        devices.changing(tmp_path),
        pytest.raises(ConfigError, match="is being changed by another process"),
        devices.changing(tmp_path, wait=0.1),
    ):
        pass
    with devices.changing(tmp_path, wait=0.0) as known:
        assert known == {}


def test_a_change_is_on_the_disk_when_it_is_done(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(os, "fsync", kept.append)
    with devices.changing(tmp_path) as known:
        known[0] = one()
    assert len(kept) == 2  # the file and its folder
    with devices.changing(tmp_path):
        pass
    assert len(kept) == 2
