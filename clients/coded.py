"""Device work of the FedAvg family where changes travel through a codec of updates, both ways.

The device takes an UPDATE frame as one of `cdc` does, answers and trains as one of `clients.fedavg` does, and
sends an UPDATE frame from the version it holds, in a message of at most `uplink.budget` bytes. What the codec
leaves out it adds to its next change (error feedback, arXiv 1901.09847); it is kept in float16 in the
device's state. A device that could not use what it was sent says which version it has and does not train.
"""

from __future__ import annotations

import math

import numpy as np
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.wire import keys
from cdc_flower.wire.messages import message_bytes
from clients.counts import answering
from clients.exchange import reply, updated
from clients.fedavg import check, learned, trainee
from clients.inference import Ask, Work
from clients.store import Adapter, Store
from clients.task import Resident, Task

CODEC = CODECS["dyadic"]
LEFT = "left"  # a record of the state: what was not sent yet, under keys.PAYLOAD


@kept(2)
def student(shared: Shared, config: PairConfig, full: bool) -> Resident:
    """The model that devices of this process train, and version 0 of its weights."""
    first = (full_model if full else twin_model)(shared, config)
    return Resident(
        trainee(shared, config, full), adapters.layout(first), Adapter.of(adapters.read(first), 0)
    )


def left(store: Store, size: int) -> NDArray[np.float32]:
    """What the device has not sent yet (size,); nothing where its state does not say."""
    record = store.state.config_records.get(LEFT)
    data = bytes(record[keys.PAYLOAD]) if record else b""  # type: ignore[arg-type]
    return (
        np.frombuffer(data, np.float16).astype(np.float32)
        if len(data) == 2 * size
        else np.zeros(size, np.float32)
    )


def coded(
    change: NDArray[np.float32], adapter: Adapter, layout: adapters.Layout, most: float, room: int
) -> tuple[bytes, NDArray[np.float32]]:
    """A change (P,) as an UPDATE frame from the version the device holds, and what of it is left.

    Args:
        change: of this round's training and what was left before.
        most: that may go of a weight's change; the server refuses what no training can do.
        room: bytes of the frame.
    """
    sizes = layout.sizes
    code = CODEC.encode(np.clip(change, -most, most), sizes, max(1, room - update.ENVELOPE))
    result = update.digest(update.add(adapter.flat, bytes((CODEC.id,)) + code, sizes))
    frame = update.chain_frame([bytes((CODEC.id,)) + code], adapter.version, layout.digest, result)
    return frame, change - CODEC.decode(code, sizes)


def work(task: Task) -> Work:
    """One round on a device."""
    check(task.order)
    own = student(task.shared, task.config.pair, bool(task.order[keys.FULL]))
    adapter, current = updated(task, own)
    tokens, asked, grids = task.tokens(task.items), task.questions(task.items), task.grids(task.items)
    answers = yield Ask(task, own.model, adapter, tokens, asked, grids=grids)
    task.store.say(task.round, answers.texts)
    counts = answering(task, tokens, asked, answers.ids, grids)
    metrics = {keys.VERSION: adapter.version, keys.EXAMPLES: 0, "loss": 0.0}
    if not current:
        return reply(b"", adapter.digest, {**metrics, **counts.metrics()})
    now = learned(task, own.model, adapter.flat)
    metrics |= {keys.EXAMPLES: now.examples, "loss": now.loss, **(counts + now.counts).metrics()}
    if not now.examples:
        return reply(b"", adapter.digest, metrics)
    change = now.flat - adapter.flat + left(task.store, len(now.flat))
    steps = int(task.order["epochs"]) * math.ceil(now.examples / int(task.order["batch"]))
    budget = task.config.uplink.budget or update.longest(len(change))
    room = budget - message_bytes(reply(b"-", adapter.digest, {**metrics, keys.SECONDS: 1.0})) - 16
    frame, rest = coded(change, adapter, own.layout, steps * float(task.order["lr"]), room)
    task.store.state[LEFT] = ConfigRecord({keys.PAYLOAD: rest.astype(np.float16).tobytes()})
    return reply(frame, adapter.digest, metrics)
