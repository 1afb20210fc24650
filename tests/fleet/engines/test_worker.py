"""A worker: the named client over messages and states; the caller's states stay as they were."""

from __future__ import annotations

import sys
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict

from cdc_flower.fleet.engines.depot import node
from cdc_flower.fleet.engines.local_grid import identify, node_id
from cdc_flower.fleet.engines.worker import FleetWorker
from cdc_flower.wire.messages import state_of


def test_replies_and_new_states_come_back_in_order_from_the_client_that_is_named(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    identify()
    for bundle in ("", "tiny_app:bundle"):
        worker = FleetWorker("tiny_app:app", bundle, 3, {"lr": 0.5}, [str(Path(__file__).parent)], gpu=True)
        assert worker.load() == node()
        states = {0: b"", 2: b""}
        for asked in (1, 2):
            sent = [
                (device, state, Message(RecordDict({"config": ConfigRecord()}), node_id(device), "train"))
                for device, state in states.items()
            ]
            found, seconds = worker.work(sent)
            assert seconds > 0
            assert [reply.content["metrics"]["device"] for reply, _ in found] == [0, 2]
            states = {device: state for device, (_, state) in zip(states, found, strict=True)}
            assert [state_of(state)["seen"]["n"] for state in states.values()] == [asked, asked]
