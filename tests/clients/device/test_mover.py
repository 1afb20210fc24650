"""What Flower starts for a message only moves it."""

import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict

from cdc_flower.config import ConfigError
from cdc_flower.fleet.engines.local_grid import identify
from cdc_flower.lock import locked
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_bytes, state_of
from clients.device import mover
from clients.device.database import FILE, Database
from clients.device.mailbox import Mailbox, Reply


@pytest.fixture
def device(tmp_path):
    """A bundle whose settings alone are there, and a mailbox in it."""
    (tmp_path / "device.toml").write_text("number = 4\nwait = 60.0")
    (tmp_path / "state").mkdir()
    return tmp_path, Mailbox(Database(tmp_path / "state" / FILE))


def context(folder) -> Context:
    return Context(1, 1, {mover.BUNDLE: str(folder), keys.DEVICE: 9}, RecordDict(), {})


def message(kind=MessageType.TRAIN, round=3) -> Message:
    identify()
    content = RecordDict({keys.CONFIG: ConfigRecord({keys.ROUND: round, keys.WORK: "w"})})
    return Message(content, dst_node_id=1, message_type=kind)


def test_it_loads_no_torch():
    code = (
        "import sys, clients.device.mover\n"
        "print([m for m in ('torch', 'transformers', 'PIL', 'pandas') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_number_is_that_of_the_bundle_whatever_the_node_config_says(device):
    reply = mover.query(message(MessageType.QUERY), context(device[0]))
    assert reply.content[keys.METRICS] == {keys.DEVICE: 4}


@pytest.mark.parametrize("named", ["", "bundle", 3])
def test_a_node_config_without_a_bundle_is_refused(named):
    of = Context(1, 1, {mover.BUNDLE: named}, RecordDict(), {})
    with pytest.raises(ConfigError, match="absolute path of a bundle"):
        mover.query(message(MessageType.QUERY), of)


def test_without_an_agent_it_says_so_at_once_and_leaves_no_order(device):
    folder, mailbox = device
    with pytest.raises(mover.AgentError, match="the agent of device 4 is not running"):
        mover.train(message(), context(folder))
    assert mailbox.waits() is None


@contextmanager
def agent(mailbox, reply):
    """An agent that answers one order, or gives up: a test that fails leaves no thread behind."""
    over, orders = threading.Event(), []

    def answering():
        while not over.wait(0.01):
            if (order := mailbox.waits()) is not None:
                orders.append(order)
                mailbox.answer(order.round, reply)
                return

    thread = threading.Thread(target=answering)
    thread.start()
    try:
        yield orders
    finally:
        over.set()
        thread.join(60)


def test_it_brings_the_order_and_takes_the_reply(device):
    folder, mailbox = device
    wanted = RecordDict({keys.CONFIG: ConfigRecord({"a": b"reply"})})
    with locked(folder / "state"):
        with agent(mailbox, Reply(state_bytes(wanted))) as orders:
            first = mover.train(message(), context(folder))
        assert [state_of(order.content) for order in orders] == [message().content]
        again = mover.train(message(), context(folder))  # it was computed, and not delivered
    assert first.content == again.content == wanted


def test_what_the_agent_could_not_do_is_the_device_s_error(device):
    folder, mailbox = device
    with (
        locked(folder / "state"),
        agent(mailbox, Reply(b"", "no such work")),
        pytest.raises(mover.AgentError, match="no such work"),
    ):
        mover.train(message(), context(folder))


def test_an_agent_that_takes_too_long_or_ended_is_an_error(device, monkeypatch):
    folder, _ = device
    (folder / "device.toml").write_text("wait = 0.1")
    with locked(folder / "state"), pytest.raises(mover.AgentError, match="did not reply within"):
        mover.train(message(), context(folder))
    (folder / "device.toml").write_text("wait = 60.0")
    monkeypatch.setattr(mover, "RESTART", 0.1)
    monkeypatch.setattr(mover, "LOOK", 0.0)
    there = iter([True, True])
    monkeypatch.setattr(mover, "taken", lambda state: next(there, False))
    with pytest.raises(mover.AgentError, match="ended and is not running"):
        mover.train(message(), context(folder))


def test_what_was_answered_is_not_told(device):
    reply = mover.evaluate(message(MessageType.EVALUATE), context(device[0]))
    assert reply.content[keys.CONFIG] == {keys.ANSWERS: []}
    assert reply.content[keys.METRICS] == {keys.ROUND: 3}
