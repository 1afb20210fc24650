"""What was asked and what came back: the ledger, and an end with a clear message when too few answer."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from cdc_flower.fleet.engines.local_grid import node_id
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.wire.fields import ReplyError
from cdc_flower.wire.messages import with_id
from cdc_flower.wire.reply import Form
from strategies.answers import Taken
from strategies.devices import FleetError
from strategies.fleet import Fleet
from tests.strategies.test_answers import said
from tests.strategies.test_devices import answering


def fleet(devices: int = 4, min_devices: int = 1, **more) -> Fleet:
    return Fleet(devices=devices, seed=0, share=1.0, min_devices=min_devices, **more)


def asked(of: Fleet, round: int = 1, kind: str = "train") -> list[Message]:
    messages = of.ask(answering(), round, kind, lambda _: RecordDict())
    return [with_id(m, f"m{round}-{d}") for d, m in enumerate(messages)]


def received(of: Fleet, replies, take=lambda device, reply: Taken(device)):
    return of.receive(1, replies, Form(), take)


def rows(of: Fleet) -> list[tuple]:
    return [(r.round, r.device, r.status) for r in of.ledger.rows()]


def test_too_few_answers_end_the_run():
    of = fleet(min_devices=3)
    messages = asked(of)
    good = [Message(said(), reply_to=m) for m in messages]
    with pytest.raises(FleetError, match="2 of 4 devices answered; setting 'run.min-devices' = 3"):
        received(of, good[:2])
    assert rows(of) == [(1, 0, "ok"), (1, 1, "ok"), (1, 2, "missing"), (1, 3, "missing")]


def test_every_answer_is_one_row_and_only_good_ones_are_handed_on(caplog):
    caplog.set_level("WARNING", "flwr")
    of, seen = fleet(), []

    def take(device, reply):
        seen.append(device)
        if device == 3:
            raise ReplyError("not this one")
        return Taken("it", samples=2, tokens=9)

    messages = asked(of)
    broken = RecordDict({"metrics": MetricRecord({"uploaded": 1})})
    replies = [
        Message(said(seconds=2.0), reply_to=messages[3]),
        Message(broken, reply_to=messages[1]),
        Message(Error(2, "no\nmemory"), reply_to=messages[2]),
        Message(said(seconds=0.5), reply_to=messages[0]),
    ]
    assert received(of, replies, take) == {0: "it"}
    assert seen == [0, 3]
    table = of.ledger.rows()
    assert [r.status for r in table] == ["ok", "refused", "failed", "refused"]
    assert [r.reason for r in table] == [
        "",
        "the record 'metrics' has an entry 'uploaded'; allowed: counts, host-seconds",
        "no memory",
        "not this one",
    ]
    assert [(r.uploaded_samples, r.tokens_sent) for r in table] == [(2, 9), (0, 0), (0, 0), (0, 0)]
    assert [r.uplink_bytes > 0 for r in table] == [True, False, False, True]
    assert of.seconds["devices"] == 2.5
    assert len(caplog.messages) == 3


def test_a_second_answer_and_one_to_nothing_change_nothing():
    of = fleet(devices=4)
    messages = asked(of)
    good = [Message(said(), reply_to=m) for m in messages]
    lies = [Message(RecordDict(), reply_to=m) for m in messages]
    stranger = Message(said(), reply_to=with_id(asked(fleet(), 2)[0], "another"))
    assert received(of, [*good, *lies, stranger]) == {d: d for d in range(4)}
    assert rows(of) == [(1, d, "ok") for d in range(4)]


def test_a_device_that_no_node_proved_to_be_is_missing_and_gets_no_message():
    of = fleet(nodes={d: node_id(d) for d in (0, 1, 3)})
    messages = asked(of)
    assert [m.metadata.dst_node_id for m in messages] == [node_id(d) for d in (0, 1, 3)]
    assert received(of, [Message(said(), reply_to=m) for m in messages]) == {0: 0, 1: 1, 3: 3}
    assert rows(of)[2] == (1, 2, "missing")
    assert len(of.ask_answers(answering(), 1)) == 3
    of.close()
    assert len(of.ledger) == 4


def test_answers_of_another_form_are_not_counted(caplog):
    caplog.set_level("WARNING", "flwr")
    judged = {}
    of = fleet(samples=2, judge=lambda device, round, texts: judged.setdefault(device, texts) and {})
    received(of, [Message(said(), reply_to=m) for m in asked(of)])
    questions = [with_id(m, f"e{i}") for i, m in enumerate(of.ask_answers(answering(), 1))]

    def answers(*texts, round=1):
        records = {"metrics": MetricRecord({"server-round": round})}
        return RecordDict({**records, "config": ConfigRecord({"answers": list(texts)})})

    lies = [answers("a", "b"), answers("a", "b", "c"), answers("a" * 4097), answers("a", round=2)]
    of.add_answers(1, [Message(lie, reply_to=q) for lie, q in zip(lies, questions, strict=True)])
    assert judged == {0: ["a", "b"]}
    assert len([m for m in caplog.messages if "are not counted" in m]) == 3


def test_a_fleet_that_comes_back_has_the_same_ledger_and_counts():
    late = FleetConfig(mode="async", in_flight=4, buffer=1)
    one, two = (fleet(rules=late, nodes={d: node_id(d) for d in range(4)}) for _ in range(2))
    messages = asked(one)
    received(one, [Message(said(seconds=0.1 + 0.2), reply_to=messages[0])])
    one.prequential[1] = {"source": (3, 4)}
    two.load(one.state())
    then = Message(said(), reply_to=messages[1])
    assert received(two, [then]) == received(one, [then]) == {1: 1}  # it knows whose answer it waits for
    assert two.ledger.rows() == one.ledger.rows()
    assert two.ledger.digest() == one.ledger.digest()
    assert (two.prequential, two.seconds) == (one.prequential, one.seconds)
    assert two.seconds["never"] == 0
    two.load(fleet().state())
    assert len(two.ledger) == 0


def test_an_order_says_which_reply_was_taken_last(caplog):
    def orders(of: Fleet, round: int) -> list[Message]:
        messages = of.ask(answering(), round, "train", lambda _: RecordDict({"config": ConfigRecord()}))
        return [with_id(m, f"r{round}-{d}") for d, m in enumerate(messages)]

    def said_in(messages):
        return [dict(m.content.config_records["config"]) for m in messages]

    def take(device, reply):
        if device == 1:
            raise ReplyError("not this one")
        return Taken(device)

    one, two, plain = fleet(receipts=True), fleet(receipts=True), fleet()
    first = orders(one, 1)
    assert said_in(first) == [{"taken": 0, "refused": 0}] * 4
    good = [Message(said(), reply_to=m) for m in first[:2]]
    received(one, [*good, Message(Error(2, "no"), reply_to=first[2])], take)
    two.load(one.state())
    later = orders(one, 7)
    first_three = [{"taken": 1, "refused": 0}, {"taken": 0, "refused": 1}, {"taken": 0, "refused": 0}]
    assert said_in(later) == said_in(orders(two, 7)) == [*first_three, {"taken": 0, "refused": 0}]
    one.receive(7, [Message(said(), reply_to=m) for m in later], Form(), lambda device, _: Taken(device))
    assert said_in(orders(one, 8)) == [{"taken": 7, "refused": round} for round in (0, 1, 0, 0)]
    assert said_in(orders(plain, 1)) == [{}] * 4
    assert "taken" not in plain.state()
