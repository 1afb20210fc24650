"""Devices by partition: seeded cohorts, and ordered replies."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid

from cdc_flower.fleet.engines.local_grid import LocalGrid, node_id
from cdc_flower.wire.messages import with_id
from strategies import devices
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
        discover(answering(2), 4, 1.0, 4)


def test_a_run_goes_on_without_a_device_that_nobody_proved_to_be():
    assert discover(answering(2), 4, 1.0, 3) == {d: node_id(d) for d in (0, 1, 3)}


class Claims(Grid):
    """Nodes 10, 11, ... that answer QUERY with these records; which is which device it does not know."""

    def __init__(self, *said: RecordDict):
        answering()  # sets Flower's identity of this process
        self.said = said

    def get_node_ids(self):
        return [10 + i for i in range(len(self.said))]

    def send_and_receive(self, messages, *, timeout=None):
        for i, message in enumerate(messages):
            with_id(message, f"q{i}")
        return [Message(s, reply_to=m) for s, m in zip(self.said, messages, strict=True)]

    run = set_run = create_message = push_messages = pull_messages = None  # type: ignore[assignment]


def claim(**metrics) -> RecordDict:
    return RecordDict({"metrics": MetricRecord({k.replace("_", "-"): v for k, v in metrics.items()})})


@pytest.mark.parametrize(
    "said",
    [
        RecordDict(),
        claim(),
        claim(partition_id=1.0),
        claim(partition_id=[1]),
        claim(partition_id=-1),
        claim(partition_id=2),
        claim(partition_id=2**70),
        claim(partition_id=0),  # which node 10 is
        claim(partition_id=1, more=1),
        RecordDict({"metrics": ConfigRecord({"partition-id": 1})}),
        RecordDict({**claim(partition_id=1), "more": ConfigRecord()}),
    ],
)
def test_a_node_that_proves_no_device_of_its_own_is_left_out(said, caplog):
    caplog.set_level("WARNING", "flwr")
    assert discover(Claims(claim(partition_id=0), said), 2, 1.0) == {0: 10}


def test_a_claim_that_the_engine_knows_to_be_false_is_none():
    app = ClientApp()

    @app.query()
    def query(message, context):
        device = context.node_config["partition-id"]
        return Message(claim(partition_id=1 if device == 0 else device), reply_to=message)

    assert discover(LocalGrid(app, 3, {}), 3, 1.0) == {d: node_id(d) for d in (1, 2)}


def test_waiting_for_nodes_is_bounded_and_says_what_to_do():
    with pytest.raises(
        FleetError, match=r"4 nodes connected within 0 s.*'run.devices' = 9.*num-supernodes=9"
    ):
        wait_for_nodes(answering(), 9, 0.0)


def test_a_simulation_of_fewer_nodes_goes_on_with_them_and_says_how_to_have_all(monkeypatch, caplog):
    class Simulated(InMemoryGrid):
        def __init__(self):
            pass

        def get_node_ids(self):
            return [7, 5]

    caplog.set_level("WARNING", "flwr")
    monkeypatch.setattr(devices, "SETTLED", 0.0)
    assert wait_for_nodes(Simulated(), 8, 60.0) == [7, 5]
    assert "2 simulated nodes, setting 'run.devices' = 8" in caplog.text
    assert "num-supernodes=8" in caplog.text


def test_replies_are_sorted_by_device_and_missing_ones_are_none():
    messages = sent(3)
    late = [Message(RecordDict({"c": ConfigRecord({"d": d})}), reply_to=messages[d]) for d in (2, 0)]
    found = matched(dict(reversed(messages.items())), late)
    assert list(found) == [0, 1, 2]
    assert found[1] is None
    assert [found[d].content["c"]["d"] for d in (0, 2)] == [0, 2]


def test_an_error_made_by_the_server_is_still_the_devices():
    messages = sent(2)
    reply = Message(Error(5, "node unavailable"), reply_to=messages[1])
    reply.metadata.__dict__["_src_node_id"] = 1  # as Flower's server does
    assert matched(messages, [reply])[1] is reply


def test_an_error_of_any_code_is_that_devices_own():
    messages = sent(2)
    replies = [Message(Error(code, "ActorDiedError"), reply_to=messages[d]) for d, code in enumerate((0, 77))]
    assert matched(messages, replies) == {0: replies[0], 1: replies[1]}


def test_the_first_reply_counts_and_replies_to_nothing_do_not():
    messages, others = sent(2), sent(3)
    first, again = (Message(RecordDict(), reply_to=messages[1]) for _ in range(2))
    assert matched(messages, [Message(RecordDict(), reply_to=others[2]), first, again]) == {0: None, 1: first}
