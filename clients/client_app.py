"""The ClientApp: an ordinary Flower app whose `train` looks up what kind of work the server asks for.

QUERY says which device answers, TRAIN does the round's work, EVALUATE says what was answered in that round.
A server can name work that is written here or that an installed package announces, and nothing else: an order
never makes a device import what it was not given."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower.config import ConfigError
from cdc_flower.session import kept
from cdc_flower.wire import keys
from clients import (
    cdc,
    cema,
    coded,
    cotta,
    dccl,
    eclm,
    evaluate,
    fedavg,
    fedkd,
    finetune,
    labelled,
    local,
    mmpg,
    mmpg_cdc,
    no_uplink,
    poison,
    released,
    spa,
    static,
    tent,
)
from clients.inference import Work, alone
from clients.task import Task

DeviceWork = Callable[[Task], Work]
"""One round of a method on a device; what it returns becomes the reply's content."""

WORK: dict[str, DeviceWork] = {
    "clients.cdc:work": cdc.work,
    "clients.cema:work": cema.work,
    "clients.labelled:work": labelled.work,
    "clients.mmpg:work": mmpg.work,
    "clients.mmpg_cdc:work": mmpg_cdc.work,
    "clients.no_uplink:work": no_uplink.work,
    "clients.released:work": released.work,
    "clients.static:work": static.work,
    "clients.fedavg:work": fedavg.work,
    "clients.coded:work": coded.work,
    "clients.local:work": local.work,
    "clients.tent:work": tent.work,
    "clients.fedkd:work": fedkd.work,
    "clients.cotta:work": cotta.work,
    "clients.finetune:work": finetune.work,
    "clients.spa:work": spa.work,
    "clients.dccl:work": dccl.work,
    "clients.eclm:work": eclm.work,
}
"""Name in the message's config -> device work that every device has."""
GROUP = "cdc_flower.device_work"
"""Entry points by which other packages announce theirs; a message names the value, "module:function"."""

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
    return (yield from begun(Task.of(message, context)))


def begun(now: Task) -> Work:
    """The work of a task: that of the message's name, unless the settings say that this device fails or means
    harm.
    """
    if (now.round, now.device) in failures(now.config.run.fail_devices):
        raise InjectedFailure(f"device {now.device} fails in round {now.round} (setting 'run.fail-devices')")
    reply = yield from work_of(str(now.order[keys.WORK]))(now)
    harmful = now.device in poison.devices(now.config.run.poison_devices)
    return poison.poisoned(now, reply) if harmful else reply


@kept(16)
def work_of(name: str) -> DeviceWork:
    """The work of a name.

    Raises:
        ConfigError: nothing of that name was installed on this device.
    """
    if name in WORK:
        return WORK[name]
    announced = {entry.value: entry for entry in entry_points(group=GROUP)}
    if name not in announced:
        allowed = ", ".join([*WORK, *announced])
        raise ConfigError(f"work '{name}' is unknown to this client; allowed: {allowed}")
    return announced[name].load()


@app.train()
def train(message: Message, context: Context) -> Message:
    """The round's work."""
    return Message(alone(begin(message, context)), reply_to=message)


@app.evaluate()
def evaluate_(message: Message, context: Context) -> Message:
    """What was answered in the round."""
    return Message(evaluate.evaluate(message, context), reply_to=message)
