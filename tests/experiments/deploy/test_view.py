"""Claims about what the cloud's page reads: it is typed and bounded, whatever stands in the files."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.deploy import keys, page, view
from tests.asking import ask

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


def _write(folder: Any, status: Any = None, devices: Any = None) -> None:
    for name, what in ((view.STATUS, status), (view.DEVICES, devices)):
        if what is not None:
            (folder / name).write_text(what if isinstance(what, str) else json.dumps(what))


def test_a_state_is_read_as_it_was_written(tmp_path):
    device = {"device": 1, "connected": True, "version": 3, "seen": 90.5, "bytes_up": 10, "refused": 2}
    versions = [{"version": 5, "round": 1}, {"version": 3, "round": 2, "agreement": 0.25, "back": True}]
    status = {
        "time": 95.0,
        "round": 2,
        "version": 3,
        "agreement": 0.5,
        "devices": [device],
        "kept": [2, 3, "x"],
    }
    status |= {"versions": versions, "accuracy": {"version": 3, "domains": {"source": 0.9, "odd": 7}}}
    status |= {
        "rollback": {"version": 3, "round": 2, "refused": ""},
        "strangers": [{"node": "8", "reason": "?"}],
    }
    _write(
        tmp_path,
        status,
        {"0": {"name": "gone", "status": "revoked"}, "1": {"name": "gate", "status": "registered"}},
    )
    found = view.read(tmp_path, 100.0)
    gone, gate = found.devices
    assert (gone.name, gone.status, gone.connected) == ("gone", "revoked", None)
    assert (gate.name, gate.connected, gate.version, gate.seen) == ("gate", True, 3, 90.5)
    assert (gate.up, gate.down, gate.refused) == (10, None, 2)
    assert (found.connected, found.allowed, found.refused, found.problem) == (1, 1, 2, "")
    assert found.versions == [view.Version(5, 1, None, None, False), view.Version(3, 2, None, 0.25, True)]
    assert (found.agreement, found.kept, found.strangers) == (0.5, [2, 3], [("8", "?")])
    assert found.accuracy == view.Measured(3, [("source", 0.9)])
    assert found.rollback == view.Rollback(3, 2, "")


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (None, "No status.json yet"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        ({"time": 0.0}, "not written its state"),
        ({"time": 970.0, "period": 5.0}, ""),
    ],
)
def test_what_is_wrong_is_said(tmp_path, status, says):
    _write(tmp_path, status, {})
    found = view.read(tmp_path, 1000.0).problem
    assert says in found
    assert bool(found) == bool(says)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A folder, and its page."""
    folder = tmp_path_factory.mktemp("cloud")
    return folder, page.application(folder)


@settings(max_examples=10)
@given(JSON, JSON, JSON)
def test_whatever_a_file_holds_a_page_can_show_it(cloud, status, device, row):
    folder, app = cloud
    keys = {"version": 1, "device": 0, "seen": device, "agreement": device, "name": row, "connected": row}
    keys |= {"reason": row, "refused": device}
    whole = {"devices": [keys, row], "versions": [row, {**keys, "round": device}], "state": status}
    whole |= {
        "strangers": [keys, row],
        "kept": [device, row],
        "rollback": keys,
        "accuracy": {"domains": status},
    }
    _write(folder, {**whole, "time": device, "guard": row}, status)
    found = view.read(folder, 100.0)
    shown = [found, *found.devices, *found.versions, found.rollback, found.accuracy]
    for of in (one for one in shown if one is not None):
        for name, value in vars(of).items():
            assert not isinstance(value, str) or len(value) <= view.LONGEST or name == "problem"
            assert not isinstance(value, float) or value == value
    assert ask(app, "/").status_code == 200


def test_a_text_cannot_turn_or_break_its_line():
    assert view.text("a\u202eb\n\x1b[31mc\u2028") == "a\ufffdb\ufffd\ufffd[31mc\ufffd"
    assert len(view.text("x" * 1000)) == view.LONGEST
    assert view.text(["x"]) == ""


def test_a_certificate_that_ends_soon_is_said_beside_whatever_else_there_is(tmp_path):
    keys.authority(tmp_path)
    keys.server(tmp_path, ["localhost"], 20)
    said = view.read(tmp_path, time.time()).problem
    assert said.startswith("No status.json yet")
    assert "The server's certificate ends 20" in said
    assert f"`cdc-flower provision rotate {tmp_path} server`" in said
    assert "certificate" not in view.read(tmp_path, time.time() - 20 * 86_400).problem
