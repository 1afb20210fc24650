"""What was answered leaves the device when asked for, of one round, without a word about what is right."""

from __future__ import annotations

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict

from cdc_flower.fleet.engines.local_grid import LocalGrid, node_id
from clients.client_app import app
from clients.store import Adapter, Store


def reply(context: Context, **order: int) -> RecordDict:
    LocalGrid(app, 1, {})  # sets Flower's identity of this process
    asked = RecordDict({"config": ConfigRecord({"server-round": 1, **order})})
    return app(Message(asked, dst_node_id=node_id(0), message_type="evaluate"), context).content


def said(round: int, context: Context) -> list[str]:
    return reply(context, **{"server-round": round})["config"]["answers"]


def shown(held: int, context: Context) -> np.ndarray | None:
    content = reply(context, held=held)
    return content["arrays"]["p"].numpy() if "arrays" in content else None


def test_the_answers_of_a_round_are_given_for_that_round_alone():
    context = Context(1, 1, {}, RecordDict(), {})
    Store.of(context).say(3, ["red", "one"])
    assert said(3, context) == ["red", "one"]
    assert said(4, context) == []


def test_a_device_that_never_worked_has_no_answers():
    assert said(1, Context(1, 1, {}, RecordDict(), {})) == []


def test_a_device_shows_the_beginning_of_what_it_keeps_where_that_is_asked_for():
    context, kept = Context(1, 1, {}, RecordDict(), {}), np.arange(5, dtype=np.float32)
    assert shown(3, context) is None
    Store.of(context).hold(Adapter.of(kept, 1))
    assert shown(0, context) is None
    assert shown(3, context).tolist() == [0, 1, 2]
    assert shown(6, context) is None
