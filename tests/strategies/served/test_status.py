"""What the cloud says of itself: counts by device, the newest versions, and both after a restart."""

from __future__ import annotations

import json

from cdc_flower.ledger import Row
from strategies.served import status as module
from strategies.served.devices import Device
from strategies.served.nodes import Nodes
from strategies.served.status import Status

ROWS = [
    Row(1, 0, uplink_bytes=10, downlink_bytes=3, uploaded_samples=2),
    Row(1, 1, "refused", uplink_bytes=5, downlink_bytes=3),
    Row(2, 1, "missing", downlink_bytes=3),
    Row(2, 0, "failed", downlink_bytes=3),
]


def made(path, **more) -> Status:
    one = Status(path / "status.json", clock=lambda: 99.0, **more)
    one.count(ROWS, [0])
    return one


def test_devices_are_counted_by_what_became_of_their_answers(tmp_path):
    one = made(tmp_path)
    nodes = Nodes(
        tmp_path / "none", True, listed={1: Device("", "", 11, name="shelf"), 2: Device("", "", name="door")}
    )
    nodes.connected, nodes.refused = {0: 10}, {2**63: "a stranger"}
    one.write(nodes, {0: 4}, [3, 1], state="waiting", round=2)
    said = json.loads((tmp_path / "status.json").read_text())
    assert said["devices"] == [
        {
            "device": 0,
            "name": "",
            "connected": True,
            "version": 4,
            "rounds": 1,
            "samples": 2,
            "bytes_up": 10,
            "bytes_down": 6,
            "refused": 0,
            "failed": 1,
            "missing": 0,
            "seen": 99.0,
        },
        {**said["devices"][1], "name": "shelf", "connected": False, "refused": 1, "missing": 1, "seen": None},
        {**said["devices"][2], "name": "door", "connected": False, "bytes_up": 0},
    ]
    assert said["strangers"] == [{"node": str(2**63), "reason": "a stranger"}]
    assert (said["kept"], said["round"], said["state"], said["time"]) == ([1, 3], 2, "waiting", 99.0)
    assert said["agreement"] is said["guard"] is said["accuracy"] is said["rollback"] is None


def test_counts_and_versions_outlive_the_process_and_versions_are_bounded(tmp_path, monkeypatch):
    one = made(tmp_path)
    for version in range(module.SHOWN + 5):
        one.made(version, version, "ab", 0.5, back=version == 7)
    two = Status(tmp_path / "status.json")
    two.load(one.state())
    assert two.tallies == one.tallies
    assert two.versions == one.versions
    assert (len(two.versions), two.versions[0]["version"], two.versions[2]["back"]) == (module.SHOWN, 5, True)
