"""Devices by partition: seeded cohorts, and ordered replies."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower.fleet.engines.local_grid import LocalGrid, node_id
from strategies.devices import FleetError, cohort, discover, matched, wait_for_nodes


def answering(*silent: int) -> LocalGrid:
    """A grid of four devices; `silent` ones raise."""
    app = ClientApp()

    @app.query()
    def query(message, context):
        if context.node_config["partition-id"] in silent:
            raise RuntimeError("away")
        return Message(
            RecordDict({"metrics": MetricRecord({"partition-id": context.node_config["partition-id"]})}),
            reply_to=message,
        )

    return LocalGrid(app, 4, {})


def sent(devices: int) -> dict[int, Message]:
    answering()  # sets Flower's identity of this process
    messages = {
        d: Message(RecordDict(), dst_node_id=node_id(d), message_type="train") for d in range(devices)
    }
    for d, message in messages.items():
        message.metadata.__dict__["_message_id"] = f"m{d}"
    return messages


def test_a_cohort_depends_on_seed_and_round_alone():
    assert cohort(1, 2, 100, 0.1) == cohort(1, 2, 100, 0.1)
    assert cohort(1, 2, 100, 0.1) != cohort(1, 3, 100, 0.1)
    assert cohort(1, 2, 100, 0.1) != cohort(2, 2, 100, 0.1)
    assert cohort(0, 1, 5, 1.0) == [0, 1, 2, 3, 4]
    assert len(cohort(0, 1, 10, 0.3)) == 3
    assert len(cohort(0, 1, 3, 0.01)) == 1


def test_every_device_is_asked_in_some_round():
    assert {d for r in range(60) for d in cohort(0, r, 10, 0.2)} == set(range(10))


def test_discovery_finds_each_devices_node():
    assert discover(answering(), 4, 1.0) == {d: node_id(d) for d in range(4)}


def test_discovery_names_the_device_that_did_not_answer():
    with pytest.raises(FleetError, match="no node answered for device 2"):
        discover(answering(2), 4, 1.0)


def test_waiting_for_nodes_is_bounded_and_says_what_to_do():
    with pytest.raises(
        FleetError, match=r"4 nodes connected within 0 s.*'run.devices' = 9.*num-supernodes=9"
    ):
        wait_for_nodes(answering(), 9, 0.0)


def test_replies_are_sorted_by_device_and_missing_ones_are_none():
    messages = sent(3)
    late = [Message(RecordDict({"c": ConfigRecord({"d": d})}), reply_to=messages[d]) for d in (2, 0)]
    found = matched(messages, late)
    assert list(found) == [0, 1, 2]
    assert found[1] is None
    assert [found[d].content["c"]["d"] for d in (0, 2)] == [0, 2]


def test_an_error_made_by_the_server_is_still_the_devices():
    messages = sent(2)
    reply = Message(Error(5, "node unavailable"), reply_to=messages[1])
    reply.metadata.__dict__["_src_node_id"] = 1  # as Flower's server does
    assert matched(messages, [reply])[1] is reply


def test_a_dead_worker_ends_the_run():
    messages = sent(2)
    with pytest.raises(FleetError, match="worker process"):
        matched(messages, [Message(Error(0, "ActorDiedError"), reply_to=messages[0])])
