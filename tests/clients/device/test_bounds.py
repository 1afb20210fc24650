"""A device keeps no adapter that is too far from the one it was shipped with."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from cdc_flower.downlink import update
from cdc_flower.wire import keys
from cdc_flower.wire.messages import payload, state_bytes
from clients.device.bounds import TooFar, check, moved
from clients.device.mailbox import Order
from clients.store import Adapter

INITIAL = Adapter.of(np.array([3.0, 4.0], np.float32), 0)


def test_distance_is_in_lengths_of_version_0():
    assert moved(INITIAL, INITIAL) == 0
    assert moved(Adapter.of(np.array([3.0, 14.0], np.float32), 1), INITIAL) == pytest.approx(2.0)


def test_what_is_further_than_allowed_is_refused_and_with_0_nothing_is():
    near, far = (Adapter.of(np.array([3.0, y], np.float32), 5) for y in (13.9, 14.1))
    check(near, INITIAL, 2.0)
    check(far, INITIAL, 0.0)
    with pytest.raises(TooFar, match=r"version 5 is 2.02 lengths of version 0.*allows 2 \(furthest"):
        check(far, INITIAL, 2.0)


def test_an_agent_answers_an_update_too_far_with_an_error_and_keeps_what_it_has(begin):
    agent = begin(feed="folder", longest_question=30)
    own = agent.student.resident

    def order(round: int, flat: np.ndarray) -> Order:
        said = {keys.ROUND: round, keys.WORK: "clients.cdc:work", keys.VERSION: round, keys.TAKEN: 0}
        frame = update.snapshot_frame(flat.astype(np.float32), round, own.layout.digest)
        content = RecordDict({keys.CONFIG: ConfigRecord(said), keys.ARRAYS: payload(frame)})
        return Order(round, state_bytes(content))

    agent.mailbox.put(order(1, own.initial.flat * -3))
    assert agent.do_order()
    assert (agent.adapter.version, agent.done.errors) == (0, 1)
    agent.mailbox.put(order(2, own.initial.flat * 1.5))
    assert agent.do_order()
    assert (agent.adapter.version, agent.done.errors) == (2, 1)
