"""LocalGrid behaves as Flower's engines do, and Flower's own strategies run on it."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_to_proto
from flwr.serverapp.strategy import FedAvg

from cdc_flower.fleet.engines.local_grid import HasStates, LocalGrid, node_id
from cdc_flower.wire.messages import frame_of, message_bytes, payload, state_bytes, state_of


def counting_app() -> ClientApp:
    """Counts its own calls in the state, changes what it was sent, and raises when told to."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        seen = int(context.state.metric_records.get("seen", MetricRecord({"n": 0}))["n"]) + 1
        context.state["seen"] = MetricRecord({"n": seen})
        message.content["config"]["changed"] = True
        if message.content.config_records["config"].get("fail"):
            raise RuntimeError("no battery")
        values = (
            message.content.array_records["arrays"]["w"].numpy()
            if "arrays" in message.content
            else np.zeros(2)
        )
        return Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({"w": Array(values + context.node_config["partition-id"])}),
                    "metrics": MetricRecord(
                        {
                            "num-examples": 1,
                            "seen": seen,
                            "device": context.node_config["partition-id"],
                            "lr": float(context.run_config["lr"]),
                        }
                    ),
                }
            ),
            reply_to=message,
        )

    @app.evaluate()
    def evaluate(message, context):
        return Message(
            RecordDict({"metrics": MetricRecord({"num-examples": 1, "acc": 0.5})}), reply_to=message
        )

    return app


def grid_of(devices=3, **more) -> LocalGrid:
    return LocalGrid(counting_app(), devices, {"lr": 0.5}, **more)


def ask(device: int, **config) -> Message:
    return Message(
        RecordDict({"config": ConfigRecord(config)}), dst_node_id=node_id(device), message_type="train"
    )


def test_node_ids_are_stable_distinct_and_not_the_devices_numbers():
    ids = list(grid_of(50).get_node_ids())
    assert ids == list(grid_of(50).get_node_ids())
    assert len(set(ids)) == 50
    assert min(ids) > 1000
    assert max(ids) < 2**63


def test_state_survives_rounds_and_belongs_to_one_device():
    grid = grid_of()
    for _ in range(2):
        grid.send_and_receive([ask(0)])
    first, other = grid.send_and_receive([ask(0), ask(1)])
    assert (first.content["metrics"]["seen"], other.content["metrics"]["seen"]) == (3, 1)
    assert first.content["metrics"]["lr"] == 0.5


def test_a_device_that_raises_becomes_an_error_reply_and_its_state_is_as_before():
    grid = grid_of()
    grid.send_and_receive([ask(0)])
    message = ask(0, fail=True)
    (reply,) = grid.send_and_receive([message])
    assert reply.has_error()
    assert reply.error.code == 2
    assert "no battery" in reply.error.reason
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert grid.context(0).state["seen"]["n"] == 1


@pytest.mark.parametrize("roundtrip", [False, True])
def test_what_a_device_does_to_a_record_stays_on_the_device(roundtrip):
    grid = grid_of(roundtrip=roundtrip)
    message = ask(0)
    grid.send_and_receive([message])
    assert "changed" not in message.content["config"]


@pytest.mark.parametrize("roundtrip", [False, True])
def test_whose_reply_it_is_says_the_grid_and_not_the_device(roundtrip):
    app, earlier = ClientApp(), []

    @app.train()
    def train(message, context):
        earlier.append(message)
        return Message(RecordDict({"m": MetricRecord({"n": len(earlier)})}), reply_to=earlier[0])

    grid = LocalGrid(app, 2, {}, roundtrip=roundtrip)
    asked = [Message(RecordDict(), dst_node_id=node_id(d), message_type="train") for d in range(2)]
    replies = list(grid.send_and_receive(asked))
    assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in asked]
    assert [r.metadata.src_node_id for r in replies] == [node_id(d) for d in range(2)]
    assert [grid.device_of(node_id(d)) for d in range(2)] == [0, 1]


@pytest.mark.parametrize(
    "lie",
    [
        None,
        7,
        RecordDict({"m": MetricRecord({"n": 2**70})}),
        RecordDict({"c": ConfigRecord({"t": "\ud800"})}),
    ],
)
def test_an_answer_that_is_no_message_is_that_devices_error(lie):
    app = ClientApp()

    @app.train()
    def train(message, context):
        return Message(lie, reply_to=message) if isinstance(lie, RecordDict) else lie

    grid = LocalGrid(app, 1, {}, roundtrip=True)
    (reply,) = grid.send_and_receive([Message(RecordDict(), dst_node_id=node_id(0), message_type="train")])
    assert reply.has_error()
    assert reply.error.code == 2


def test_tasks_that_would_begin_after_the_timeout_are_not_answered():
    grid = grid_of()
    assert list(grid.send_and_receive([ask(0), ask(1)], timeout=-1.0)) == []
    assert "seen" not in grid.context(0).state


def test_a_node_that_does_not_exist_is_refused():
    message = Message(RecordDict(), dst_node_id=7, message_type="train")
    with pytest.raises(ValueError, match="no node 7"):
        grid_of().push_messages([message])


def test_push_and_pull_give_each_reply_once():
    grid = grid_of()
    ids = list(grid.push_messages([ask(0), ask(1)]))
    assert [r.metadata.reply_to_message_id for r in grid.pull_messages(ids)] == ids
    assert list(grid.pull_messages(ids)) == []


@pytest.mark.parametrize("roundtrip", [False, True])
def test_flowers_own_fedavg_runs_on_it(roundtrip):
    start = ArrayRecord({"w": Array(np.zeros(2, np.float32))})
    result = FedAvg().start(grid_of(roundtrip=roundtrip), start, num_rounds=2)
    np.testing.assert_allclose(result.arrays["w"].numpy(), [2.0, 2.0])  # each round adds the mean of 0, 1, 2


def test_message_bytes_are_those_of_the_serialised_records():
    content = RecordDict({"arrays": payload(b"x" * 1000), "config": ConfigRecord({"work": "cdc"})})
    assert message_bytes(content) == len(recorddict_to_proto(content).SerializeToString())
    assert (
        message_bytes(content) - message_bytes(RecordDict({"config": ConfigRecord({"work": "cdc"})}))
        < 1000 + 64
    )


def test_a_frame_comes_back_as_it_was_and_its_absence_is_empty():
    assert frame_of(RecordDict({"arrays": payload(b"abc")})) == b"abc"
    assert frame_of(RecordDict()) == b""


def test_devices_that_get_their_states_back_go_on_where_they_were():
    one, two = grid_of(), grid_of()
    one.send_and_receive([ask(0), ask(0), ask(2)])
    two.send_and_receive([ask(1)])
    assert sorted(one.states()) == [0, 2]  # device 1 has nothing to save
    two.restore(one.states())
    assert two.states() == one.states()
    seen = [r.content["metrics"]["seen"] for r in two.send_and_receive([ask(0), ask(1), ask(2)])]
    assert seen == [3, 1, 2]


def test_every_kind_of_record_survives_in_a_state():
    state = RecordDict(
        {
            "held": ArrayRecord({"p": Array(np.array([1.5, np.nan], np.float32))}),
            "version": ConfigRecord({"v": 3, "digest": b"\0\xff", "name": "é", "all": [1, 2]}),
            "counts": MetricRecord({"round": 2**40, "mean": 0.1, "source": [3, 4]}),
        }
    )
    back = state_of(state_bytes(state))
    assert state_bytes(back) == state_bytes(state)
    assert back["held"]["p"].numpy().tobytes() == state["held"]["p"].numpy().tobytes()
    assert dict(back["version"]) == dict(state["version"])
    assert dict(back["counts"]) == dict(state["counts"])


def test_only_grids_that_own_the_states_have_them():
    assert isinstance(grid_of(), HasStates)
    assert not isinstance(FedAvg(), HasStates)
