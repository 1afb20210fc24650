"""A device that means harm, to see what a defence is worth: setting `run.poison-devices`.

It does its work as all do and then answers with the worst that its checks let through. Of weights that is
every weight moved against its own training, as far as the device's steps could move one. Of token frames it
is noise like the pair's tokens, of as many samples as fit into the bytes of the honest frame. Pictures go up
as they are.
"""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from cdc_flower.uplink import token_batch
from cdc_flower.wire import keys
from cdc_flower.wire.messages import payload
from clients.task import Task


def devices(spec: str) -> set[int]:
    """Devices of "1,4"."""
    return {int(part) for part in spec.split(",") if part.strip()}


def poisoned(task: Task, reply: RecordDict) -> RecordDict:
    """The reply with another array."""
    if keys.ARRAYS in reply:
        array: Any = reply.array_records[keys.ARRAYS][keys.PAYLOAD]
        if array.stype != keys.STYPE:
            reply[keys.ARRAYS] = _reversed(task, array.data, reply.metric_records[keys.METRICS])
        elif task.config.uplink.unit == "tokens":
            reply[keys.ARRAYS] = payload(_noise(task, array.data))
    return reply


def _reversed(task: Task, data: bytes, metrics: Any) -> ArrayRecord:
    sent = task.sent.array_records[keys.ARRAYS][keys.PAYLOAD].data
    start, flat = (np.load(io.BytesIO(some), allow_pickle=False).astype(np.float32) for some in (sent, data))
    order: Any = task.order
    steps = order["epochs"] * math.ceil(metrics[keys.EXAMPLES] / order["batch"])
    harm = start - np.sign(flat - start) * np.float32(order["lr"] * steps)
    return ArrayRecord({keys.PAYLOAD: Array(harm.astype(np.float16))})


def _noise(task: Task, frame: bytes) -> bytes:
    shared, up, rng = task.shared, task.config.uplink, task.rng("poison")
    turn = shared.transform_for(up)
    batch = token_batch.decode(frame, shared.fits, shared.width, shared.vocab, len(frame), transform=turn)
    seen = np.concatenate([sample.tokens for sample in batch.samples])
    samples = tuple(
        replace(s, tokens=rng.normal(seen.mean(0), seen.std(0), s.tokens.shape).astype(np.float32))
        for s in batch.samples
    )
    while True:
        made = token_batch.encode(replace(batch, samples=samples), shared.width, up.token_bits, turn)
        if len(made) <= len(frame) or not samples:
            return made
        samples = samples[:-1]
