"""Nodes come and go; a number belongs to the node that the list names, or that claimed it first."""

from __future__ import annotations

import json

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict

from cdc_flower.fleet.engines.local_grid import OwnGrid, identify
from cdc_flower.wire.messages import with_id
from strategies.served import devices
from strategies.served import nodes as module
from strategies.served.nodes import Nodes


class Switchboard(OwnGrid):
    """Nodes that claim to be devices: node -> number, or None for one that says nothing."""

    def __init__(self, claims):
        identify()
        self.claims, self.asked = dict(claims), []

    def get_node_ids(self):
        return list(self.claims)

    def send_and_receive(self, messages, *, timeout=None):
        found = []
        for i, message in enumerate(messages):
            with_id(message, f"q{len(self.asked)}-{i}")
            self.asked.append(message.metadata.dst_node_id)
            says = self.claims[message.metadata.dst_node_id]
            if says is None:
                found.append(Message(Error(2, "no"), reply_to=message))
            else:
                records = RecordDict({"metrics": MetricRecord({"partition-id": says})})
                found.append(Message(records, reply_to=message))
        return found

    push_messages = pull_messages = None  # type: ignore[assignment]


def listed(path, **entries):
    """devices.json: d0=(node, status), ..."""
    said = {
        name[1:]: {
            "name": f"shelf-{name[1:]}",
            "node-id": node,
            "status": status,
            "public-key": f"ecdsa {name}",
            "fingerprint": name,
        }
        for name, (node, status) in entries.items()
    }
    path.write_text(json.dumps(said))
    return path


def test_numbers_belong_to_the_nodes_that_the_list_names(tmp_path, caplog):
    caplog.set_level("WARNING", "flwr")
    file = listed(
        tmp_path / "devices.json",
        d0=(10, "registered"),
        d1=(11, "registered"),
        d2=(12, "revoked"),
        d3=(None, "made"),
    )
    grid = Switchboard({10: 0, 11: 0, 12: 2, 13: 3, 14: 9, 15: 10**9})
    nodes = Nodes(file.parent, authenticated=True)
    assert nodes.look(grid) == {0: 10}
    assert nodes.refused == {
        11: "it claims to be device 0, which is another node",
        12: "it claims to be device 2, which is revoked",
        13: "it claims to be device 3, which is another node",
        14: "it claims to be device 9, which is not in the list of devices",
        15: "partition-id is 1000000000; allowed: int from 0 to 9999999",
    }
    assert len([m for m in caplog.messages if "is no device of this cloud" in m]) == 5
    assert nodes.look(grid) == {0: 10}
    assert len(grid.asked) == 6  # nobody is asked twice
    assert nodes.devices == 4
    grid.claims = {11: 1}
    assert nodes.look(grid) == {}
    assert set(nodes.refused) == {11}
    grid.claims = {}
    nodes.look(grid)
    grid.claims = {11: 1, 10: 0}
    assert nodes.look(grid) == {0: 10, 1: 11}


def test_a_device_that_is_revoked_or_gets_another_key_is_let_go_at_once(tmp_path):
    file = listed(tmp_path / "devices.json", d0=(10, "registered"), d1=(11, "registered"))
    grid, nodes = Switchboard({10: 0, 11: 1}), Nodes(file.parent, authenticated=True)
    assert nodes.look(grid) == {0: 10, 1: 11}
    listed(file, d0=(10, "revoked"), d1=(21, "registered"))
    assert nodes.look(grid) == {}
    grid.claims[21] = 1
    assert nodes.look(grid) == {1: 21}


def test_without_keys_the_first_claim_counts_while_its_node_is_there(tmp_path):
    grid, nodes = Switchboard({10: 0, 11: 0, 12: 1}), Nodes(tmp_path, authenticated=False)
    assert nodes.look(grid) == {0: 10, 1: 12}
    assert "which node 10 was first" in nodes.refused[11]
    assert nodes.devices == 2
    grid.claims = {12: 1, 13: 0}  # device 0 came back under another id
    assert nodes.look(grid) == {0: 13, 1: 12}


def test_a_node_that_says_nothing_is_asked_again_later(tmp_path):
    now = [0.0]
    nodes = Nodes(tmp_path, authenticated=False, clock=lambda: now[0])
    grid = Switchboard({10: None})
    assert nodes.look(grid) == nodes.look(grid) == {}
    assert grid.asked == [10]
    grid.claims[10], now[0] = 4, module.AGAIN + 1
    assert nodes.look(grid) == {4: 10}


@pytest.mark.parametrize("text", ["{", "[]", '{"0": 1}', '{"a": {"status": "made"}}', '{"0": {}}'])
def test_a_list_that_cannot_be_read_leaves_the_devices_as_they_were(text, tmp_path, caplog):
    caplog.set_level("WARNING", "flwr")
    file = listed(tmp_path / "devices.json", d0=(10, "registered"))
    grid, nodes = Switchboard({10: 0}), Nodes(file.parent, authenticated=True)
    assert nodes.look(grid) == {0: 10}
    file.write_text(text)
    assert nodes.look(grid) == {0: 10}
    assert "cannot be read" in caplog.text


def test_node_ids_are_of_64_bits(tmp_path):
    file = listed(tmp_path / "devices.json", d0=(2**64 - 1, "registered"))
    assert devices.read(file.parent)[0].node_id == 2**64 - 1


def test_a_node_with_a_key_is_asked_once_whatever_ends_meanwhile(tmp_path):
    file = listed(tmp_path / "devices.json", d0=(10, "registered"))
    grid, nodes = Switchboard({10: 0}), Nodes(tmp_path, authenticated=True)
    assert nodes.look(grid) == {0: 10}
    after = Nodes(tmp_path, authenticated=True)  # in another process
    after.load(nodes.state())
    grid.claims = {}
    assert after.look(grid) == {}
    grid.claims = {10: 0}
    assert after.look(grid) == {0: 10}
    assert grid.asked == [10]
    listed(file, d0=(10, "revoked"))
    assert after.look(grid) == {}
    after.load({})
    assert after.proved == {}


def test_a_device_that_came_before_the_list_was_written_is_taken_when_it_is(tmp_path):
    file = listed(tmp_path / "devices.json", d0=(None, "made"), d1=(12, "registered"))
    nodes, grid = Nodes(tmp_path, authenticated=True), Switchboard({11: 0, 13: 1})
    assert nodes.look(grid) == {}
    assert set(nodes.refused) == {11, 13}
    listed(file, d0=(11, "registered"), d1=(12, "registered"))
    assert nodes.look(grid) == {0: 11}
    assert set(nodes.refused) == {13}
    assert grid.asked == [11, 13]  # what they said is known
    grid.claims = {}
    assert nodes.look(grid) == {}
    listed(file, d0=(11, "registered"), d1=(13, "registered"))
    grid.claims = {11: 0, 13: 1}
    assert nodes.look(grid) == {0: 11, 1: 13}
    assert grid.asked == [11, 13, 13]  # who was refused and went away says it again
