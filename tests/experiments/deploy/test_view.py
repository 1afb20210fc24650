"""Claims about what the cloud's page reads: it is typed and bounded, whatever stands in the files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.deploy import view

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
    device = {"connected": True, "version": 3, "seen": 90.5, "up": 10, "refused": 2, "agreement": 0.5}
    rounds = [{"round": 1, "version": 5}, {"round": 2, "version": 3, "agreement": 0.25}]
    _write(
        tmp_path,
        {"written": 95.0, "round": 2, "version": 3, "devices": {"1": device}, "rounds": rounds},
        {"0": {"name": "gone", "status": "revoked"}, "1": {"name": "gate", "status": "registered"}},
    )
    found = view.read(tmp_path, 100.0)
    gone, gate = found.devices
    assert (gone.name, gone.status, gone.connected) == ("gone", "revoked", None)
    assert (gate.name, gate.connected, gate.version, gate.seen) == ("gate", True, 3, 90.5)
    assert (gate.up, gate.down, gate.refused, gate.agreement) == (10, None, 2, 0.5)
    assert (found.connected, found.allowed, found.refused, found.problem) == (1, 1, 2, "")
    assert [r.round for r in found.rollbacks] == [2]
    assert found.last is not None
    assert found.last.agreement == 0.25


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (None, "No status.json yet"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        ({"written": 0.0}, "not written its state"),
        ({"written": 970.0, "period": 5.0}, ""),
    ],
)
def test_what_is_wrong_is_said(tmp_path, status, says):
    _write(tmp_path, status, {})
    found = view.read(tmp_path, 1000.0).problem
    assert says in found
    assert bool(found) == bool(says)


@settings(max_examples=20)
@given(JSON, JSON, JSON)
def test_whatever_a_file_holds_a_page_can_show_it(tmp_path_factory, status, device, row):
    folder = tmp_path_factory.mktemp("cloud", numbered=True)
    keys = {"version": device, "seen": device, "agreement": device, "reason": row, "connected": row}
    _write(folder, {"devices": {"0": keys}, "rounds": [row, {"round": 1, **keys}], "state": status}, status)
    found = view.read(folder, 100.0)
    for of in (found, *found.devices, *found.rounds):
        for name, value in vars(of).items():
            assert value is None or isinstance(value, bool | int | float | str | list), name
            assert not isinstance(value, str) or len(value) <= 2 * view.LONGEST or name == "problem"
            assert not isinstance(value, float) or value == value


def test_a_text_cannot_turn_or_break_its_line():
    assert view.text("a\u202eb\n\x1b[31mc\u2028") == "a\ufffdb\ufffd\ufffd[31mc\ufffd"
    assert len(view.text("x" * 1000)) == view.LONGEST
    assert view.text(["x"]) == ""
