"""A device that means harm, to see what a defence is worth: setting `run.poison-devices`.

It does its work as all do and then answers with the worst that its checks let through: "0,3:huge" makes
devices 0 and 3 send what `clients.poisons` has under that name, "0,3" noise. Frames have as many samples as
fit into the budget. Of weights harm is every weight moved against its own training, as far as the device's
steps could move one, whatever the name. Pictures go up as they are.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from cdc_flower.rules import poisoners
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.sample import MAX_BYTES
from cdc_flower.wire import keys
from cdc_flower.wire.messages import payload
from clients import poisons
from clients.exchange import overhead
from clients.task import Task


def devices(spec: str) -> set[int]:
    """Devices of "1,4:noise"."""
    return set(poisoners(spec)[0])


def poisoned(task: Task, reply: RecordDict) -> RecordDict:
    """The reply with another array."""
    if keys.ARRAYS in reply:
        array: Any = reply.array_records[keys.ARRAYS][keys.PAYLOAD]
        if array.stype != keys.STYPE:
            reply[keys.ARRAYS] = _reversed(task, array.data, reply.metric_records[keys.METRICS])
        elif task.config.uplink.unit == "tokens":
            reply[keys.ARRAYS] = payload(_frame(task, array.data))
    return reply


def _reversed(task: Task, data: bytes, metrics: Any) -> ArrayRecord:
    sent = task.sent.array_records[keys.ARRAYS][keys.PAYLOAD].data
    start, flat = (np.load(io.BytesIO(some), allow_pickle=False).astype(np.float32) for some in (sent, data))
    order: Any = task.order
    steps = order["epochs"] * math.ceil(metrics[keys.EXAMPLES] / order["batch"])
    harm = start - np.sign(flat - start) * np.float32(order["lr"] * steps)
    return ArrayRecord({keys.PAYLOAD: Array(harm.astype(np.float16))})


def _frame(task: Task, frame: bytes) -> bytes:
    """The frame of harmful samples in place of an honest one, as many as fit into what a device may send."""
    shared, up = task.shared, task.config.uplink
    turn = shared.transform_for(up)
    honest = token_batch.decode(frame, shared.fits, shared.width, shared.vocab, len(frame), transform=turn)
    chosen, kind = poisoners(task.config.run.poison_devices)
    samples = poisons.KINDS[kind](task, honest, chosen)
    most = max(len(frame), up.budget - overhead()) if up.budget else MAX_BYTES
    while True:
        made = token_batch.encode(replace(honest, samples=samples), shared.width, up.token_bits, turn)
        if len(made) <= most or not samples:
            return made
        samples = samples[:-1]
