"""What was asked and what came back: the ledger, and an end with a clear message when too few answer."""

from __future__ import annotations

import pytest
from flwr.app import Message, MetricRecord, RecordDict

from strategies.devices import FleetError
from strategies.fleet import Fleet
from tests.strategies.test_devices import answering


def test_too_few_answers_end_the_run():
    fleet = Fleet(devices=4, seed=0, share=1.0, min_devices=3)
    fleet.require(1, 3)
    with pytest.raises(FleetError, match="2 of 0 devices answered; setting 'run.min-devices' = 3"):
        fleet.require(1, 2)


def test_counts_that_are_no_numbers_do_not_enter_the_ledger():
    fleet = Fleet(devices=1, seed=0, share=1.0, min_devices=1)
    message = fleet.ask(answering(), 1, "train", lambda _: RecordDict())[0]
    message.metadata.__dict__["_message_id"] = "m"
    lies = MetricRecord({"uploaded": [1, 2], "tokens": -5, "counts": [1, 2], "host-seconds": float("nan")})
    assert fleet.enter(0, Message(RecordDict({"metrics": lies}), reply_to=message))
    row = fleet.ledger.rows()[0]
    assert (row.uploaded_samples, row.tokens_sent, row.flops_forward, row.host_seconds) == (0, 0, 0, 0)


def test_a_fleet_that_comes_back_has_the_same_ledger_and_counts():
    one, two = (Fleet(devices=1, seed=0, share=1.0, min_devices=1) for _ in range(2))
    message = one.ask(answering(), 1, "train", lambda _: RecordDict())[0]
    message.metadata.__dict__["_message_id"] = "m"
    said = MetricRecord({"uploaded": 3, "host-seconds": 0.1 + 0.2})
    one.enter(0, Message(RecordDict({"metrics": said}), reply_to=message))
    one.prequential[1] = {"source": (3, 4)}
    two.load(one.state())
    late = Message(RecordDict(), reply_to=message)
    assert two.answers([late]) == one.answers([late]) == {0: late}  # it knows whose answer it waits for
    assert two.ledger.rows() == one.ledger.rows()
    assert two.ledger.digest() == one.ledger.digest()
    assert (two.prequential, two.seconds) == (one.prequential, one.seconds)
    assert two.seconds["never"] == 0
    two.load(Fleet(devices=1, seed=0, share=1.0, min_devices=1).state())
    assert len(two.ledger) == 0
