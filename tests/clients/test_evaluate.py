"""What was answered leaves the device when asked for, of one round, without a word about what is right."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message, RecordDict

from cdc_flower.fleet.engines.local_grid import LocalGrid, node_id
from clients.client_app import app
from clients.store import Store


def said(round: int, context: Context) -> list[str]:
    LocalGrid(app, 1, {})  # sets Flower's identity of this process
    order = RecordDict({"config": ConfigRecord({"server-round": round})})
    return app(Message(order, dst_node_id=node_id(0), message_type="evaluate"), context).content["config"][
        "answers"
    ]


def test_the_answers_of_a_round_are_given_for_that_round_alone():
    context = Context(1, 1, {}, RecordDict(), {})
    Store.of(context).say(3, ["red", "one"])
    assert said(3, context) == ["red", "one"]
    assert said(4, context) == []


def test_a_device_that_never_worked_has_no_answers():
    assert said(1, Context(1, 1, {}, RecordDict(), {})) == []
