"""Claims about a device's status: it is read from its folder, while the agent runs and after."""

from __future__ import annotations

import json

from clients.device.mailbox import Order
from clients.device.settings import Bundle
from clients.device.status import status


def test_a_device_that_never_ran_has_nothing(one_bundle):
    found = status(Bundle.of(one_bundle))
    assert (found["running"], found["version"], found["samples"]) == (False, 0, None)
    assert not (one_bundle / "state").exists()


def test_it_says_what_the_agent_has(begin, picture):
    agent = begin()
    agent.ask("what?", picture)
    agent.mailbox.put(Order(4, b"no order"))
    found = status(agent.bundle)
    assert (found["running"], found["order"], found["samples"]["waiting"]) == (True, 4, 1)
    agent.do_order()
    found = status(agent.bundle)
    assert (found["order"], found["round"]) == (None, 4)
    assert found["error"].startswith("OrderError")
    json.dumps(found)
