"""The half of a device that Flower starts anew for every message: it only moves messages.

No torch is imported here, and no model: a process of Flower would load them for each message. A TRAIN message
goes into the mailbox, and its reply is the agent's. Which device it is says `device.toml`, whose folder the
node config names (`bundle`). What devices answered is theirs: EVALUATE tells nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower.config import ConfigError, RunError
from cdc_flower.lock import taken
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_bytes, state_of
from clients.device.database import FILE, Database
from clients.device.mailbox import Mailbox, Order
from clients.device.settings import Bundle

BUNDLE = "bundle"  # in node_config: the folder of the device
POLL = 0.05  # s, between looks for the reply
LOOK = 1.0  # s, between looks whether the agent runs
RESTART = 60.0  # s, that an agent which ended at its work may take to begin anew

app = ClientApp()


class AgentError(RunError):
    """The agent did not do an order; its text is the device's error reply."""


def bundle_of(context: Context) -> Bundle:
    """The bundle of the device that a context belongs to.

    Raises:
        ConfigError: the node config does not name one, or it cannot be used.
    """
    named = context.node_config.get(BUNDLE)
    if not isinstance(named, str) or not Path(named).is_absolute():
        raise ConfigError(f"node config '{BUNDLE}' = {named!r}; allowed: the absolute path of a bundle")
    return Bundle.of(Path(named))


@app.query()
def query(message: Message, context: Context) -> Message:
    """Which device this is."""
    number = bundle_of(context).device.number
    return Message(RecordDict({keys.METRICS: MetricRecord({keys.DEVICE: number})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """The agent's reply."""
    bundle = bundle_of(context)
    if not taken(bundle.state):
        raise AgentError(f"the agent of device {bundle.device.number} is not running")
    round = int(message.content.config_records[keys.CONFIG][keys.ROUND])  # type: ignore[arg-type]
    database = Database(bundle.state / FILE)
    try:
        mailbox = Mailbox(database)
        mailbox.put(Order(round, state_bytes(message.content)))
        return Message(state_of(_reply(bundle, mailbox, round)), reply_to=message)
    finally:
        database.close()


def _reply(bundle: Bundle, mailbox: Mailbox, round: int) -> bytes:
    """The agent's reply to a round's order.

    Raises:
        AgentError: it could not do it, took too long, or ended and did not begin anew.
    """
    end = time.monotonic() + bundle.device.wait
    seen = look = time.monotonic()
    while (found := mailbox.reply(round)) is None:
        now = time.monotonic()
        if now >= look:
            look = now + LOOK
            seen = now if taken(bundle.state) else seen
        if now - seen > RESTART:
            raise AgentError(f"the agent of device {bundle.device.number} ended and is not running")
        if now > end:
            raise AgentError(
                f"the agent of device {bundle.device.number} did not reply within {bundle.device.wait:g} s"
            )
        time.sleep(POLL)
    if found.error:
        raise AgentError(found.error)
    return found.content


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Nothing."""
    round = int(message.content.config_records[keys.CONFIG][keys.ROUND])  # type: ignore[arg-type]
    records = {keys.METRICS: MetricRecord({keys.ROUND: round}), keys.CONFIG: ConfigRecord({keys.ANSWERS: []})}
    return Message(RecordDict(records), reply_to=message)
