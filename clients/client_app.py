"""The ClientApp: an ordinary Flower app whose `train` looks up what kind of work the server asks for.

QUERY says which device answers, TRAIN does the round's work, EVALUATE hands out the prequential counts of
that round."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower.config import ConfigError
from cdc_flower.wire import keys
from clients import cdc, evaluate, fedavg, static
from clients.inference import Work, alone
from clients.task import Task, task

WORK: dict[str, Callable[[Task, Message, Context], Work]] = {
    "cdc": cdc.work,
    "upload_all": cdc.work_all,
    "static": static.work,
    "fedavg": fedavg.work,
}
"""Name in the message's config -> device work; what it returns becomes the reply's content."""

app = ClientApp()


class InjectedFailure(RuntimeError):
    """Raised on purpose, by setting `run.fail-devices`."""


def failures(spec: str) -> set[tuple[int, int]]:
    """(round, device) pairs of "2:1,4:0".

    Raises:
        ConfigError: another form.
    """
    try:
        parts = [p.split(":") for p in spec.split(",") if p.strip()]
        return {(int(r), int(d)) for r, d in parts}
    except ValueError:
        raise ConfigError(
            f"setting 'run.fail-devices' = {spec!r}; allowed: round:device pairs, e.g. '2:1,4:0'"
        ) from None


@app.query()
def query(message: Message, context: Context) -> Message:
    """Which device this node is."""
    return Message(
        RecordDict({keys.METRICS: MetricRecord({keys.DEVICE: int(context.node_config[keys.DEVICE])})}),
        reply_to=message,
    )


def begin(message: Message, context: Context) -> Work:
    """The round's work, which the message asks for; nothing is done before it is driven."""
    now = task(message, context)
    if (now.round, now.device) in failures(now.config.run.fail_devices):
        raise InjectedFailure(f"device {now.device} fails in round {now.round} (setting 'run.fail-devices')")
    kind = str(now.order[keys.WORK])
    if kind not in WORK:
        raise ConfigError(f"work '{kind}' is unknown to this client; allowed: {', '.join(WORK)}")
    return (yield from WORK[kind](now, message, context))


@app.train()
def train(message: Message, context: Context) -> Message:
    """The round's work."""
    return Message(alone(begin(message, context)), reply_to=message)


@app.evaluate()
def evaluate_(message: Message, context: Context) -> Message:
    """The round's prequential counts."""
    return Message(evaluate.evaluate(message, context), reply_to=message)
