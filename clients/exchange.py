"""What a device does with the UPDATE frame it is sent, and the form of its replies.

Shared by the device work of `cdc`, of what builds on it, and of FedAvg through a codec.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from logging import WARNING
from typing import Any

from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.supercore import log

from cdc_flower.downlink import update
from cdc_flower.session import kept
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import frame_of, message_bytes, payload
from clients.store import Adapter
from clients.task import Resident, Task


@kept(8)
def _applied(
    frame: bytes, adapter: Adapter, layout: bytes, sizes: tuple[int, ...], max_bytes: int, max_chain: int
) -> Adapter:
    """An update decoded once for all devices of this process that hold one adapter."""
    flat, version = update.apply(frame, adapter.flat, adapter.version, layout, sizes, max_bytes, max_chain)
    return adapter if flat is adapter.flat else Adapter.of(flat, version)


def updated(task: Task, student: Resident) -> tuple[Adapter, bool]:
    """The adapter after the message, and whether it is the version the cloud wanted the device to have."""
    adapter, layout = task.store.held(student.initial), student.layout
    frame, cap = frame_of(task.sent), update.longest(sum(layout.sizes))
    history = task.config.downlink.history
    if frame:
        try:
            start = student.initial if update.stands_alone(frame, cap) else adapter
            adapter = _applied(frame, start, layout.digest, layout.sizes, cap, history)
            task.store.hold(adapter)
        except FrameError as err:
            log(WARNING, "device %s keeps version %s: %s", task.device, adapter.version, err)
            return adapter, False
    return adapter, adapter.version == task.order[keys.VERSION]


def reply(frame: bytes, digest: bytes, metrics: Any) -> RecordDict:
    """The content of a reply: metrics, digest of the adapter, and the frame where there is one."""
    records = RecordDict(
        {keys.METRICS: MetricRecord(metrics), keys.CONFIG: ConfigRecord({keys.DIGEST: digest})}
    )
    if frame:
        records[keys.ARRAYS] = payload(frame)
    return records


@cache
def overhead() -> int:
    """An upper bound of the bytes a message adds to its frame."""
    counts = dict.fromkeys((keys.VERSION, keys.UPLOADED, keys.TOKENS), 2**32)
    metrics = {**counts, keys.COUNTS: [2**34] * len(fields(Counts)), keys.SECONDS: 1.0}
    return message_bytes(reply(b"-", bytes(update.DIGEST_BYTES), metrics)) + 16
