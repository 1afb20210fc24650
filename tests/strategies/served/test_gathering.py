"""Answers are handed on when enough of them are there, and a message has its time."""

from __future__ import annotations

import itertools

import pytest
from flwr.app import Message, RecordDict

from cdc_flower.fleet.engines.local_grid import UNAVAILABLE, OwnGrid, identify
from cdc_flower.wire.messages import with_id
from strategies.served.gathering import POLL, Gathering


class Slow(OwnGrid):
    """Node i answers after `delays[i]` seconds of the test's clock; None = never, "" = cannot be sent to."""

    def __init__(self, *delays):
        identify()
        self.delays, self.now, self.sent, self.pulls = delays, 0.0, {}, 0
        self.ids = itertools.count()

    def push_messages(self, messages):
        ids = []
        for message in messages:
            with_id(message, f"m{next(self.ids)}")
            delay = self.delays[message.metadata.dst_node_id]
            self.sent[message.metadata.message_id] = (message, delay, self.now)
            ids.append(None if delay == "" else message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids):
        self.pulls += 1
        ready = [
            i
            for i in message_ids
            if i in self.sent
            and self.sent[i][1] is not None
            and self.sent[i][2] + self.sent[i][1] <= self.now
        ]
        return [Message(RecordDict(), reply_to=self.sent.pop(i)[0]) for i in ready]

    def get_node_ids(self):
        return range(len(self.delays))

    def wait(self, seconds):
        self.now += seconds

    send_and_receive = None  # type: ignore[assignment]


def messages(*nodes, kind="train"):
    identify()
    return [Message(RecordDict(), dst_node_id=n, message_type=kind) for n in nodes]


def over(inner, enough=0):
    return Gathering(inner, enough, clock=lambda: inner.now, sleep=inner.wait)


def nodes_of(replies):
    return [(r.metadata.src_node_id, r.error.code if r.has_error() else 0) for r in replies]


def test_a_round_waits_for_all_and_not_beyond_its_time():
    inner = Slow(0, 7, 2)
    assert nodes_of(over(inner).send_and_receive(messages(0, 1, 2), timeout=60)) == [(0, 0), (2, 0), (1, 0)]
    assert 7 <= inner.now < 7 + 2 * POLL
    inner = Slow(0, None)
    grid = over(inner)
    assert nodes_of(grid.send_and_receive(messages(0, 1), timeout=60)) == [(0, 0)]
    assert 60 <= inner.now < 60 + 2 * POLL
    assert grid.open == 0


def test_an_empty_round_of_its_own_ends_at_once():
    inner = Slow(0)
    assert over(inner).send_and_receive([], timeout=60) == []
    assert (inner.now, inner.pulls) == (0, 0)


def test_with_a_buffer_what_is_late_comes_in_a_later_round():
    inner = Slow(0, 1, 5, 0)
    grid = over(inner, 2)
    assert nodes_of(grid.send_and_receive(messages(0, 1, 2), timeout=60)) == [(0, 0), (1, 0)]
    assert grid.open == 1
    assert nodes_of(grid.send_and_receive(messages(3, 0), timeout=60)) == [(3, 0), (0, 0)]
    assert nodes_of(grid.send_and_receive([], timeout=60)) == [(2, 0)]
    assert grid.open == 0


def test_with_a_buffer_a_message_that_had_its_time_is_given_up():
    inner = Slow(0, None, 0)
    grid = over(inner, 1)
    assert nodes_of(grid.send_and_receive(messages(1, 0), timeout=10)) == [(0, 0)]
    inner.now = 11.0
    replies = grid.send_and_receive(messages(2), timeout=10)
    assert nodes_of(replies) == [(2, 0), (1, UNAVAILABLE)]
    assert replies[1].metadata.reply_to_message_id == "m0"
    assert grid.open == 0


@pytest.mark.parametrize("enough", [0, 2])
def test_what_cannot_be_sent_is_said_at_once(enough):
    inner = Slow("", 0)
    assert nodes_of(over(inner, enough).send_and_receive(messages(0, 1), timeout=60)) == [
        (0, UNAVAILABLE),
        (1, 0),
    ]
    assert inner.now == 0


def test_questions_are_no_round():
    inner = Slow(0, 3, None)
    grid = over(inner, 1)
    assert nodes_of(grid.send_and_receive(messages(0, 1, 2, kind="query"), timeout=5)) == [(0, 0), (1, 0)]
    assert grid.open == 0
