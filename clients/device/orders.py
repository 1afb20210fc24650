"""What an order of the cloud makes of a device's samples: the work, and which of them went up."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from flwr.app import RecordDict

from cdc_flower.data.features import Grid
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.pictures import picture_batch
from cdc_flower.uplink.pictures.picture_batch import FORMS
from cdc_flower.uplink.sample import Limits
from cdc_flower.wire import keys
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import frame_of, state_of
from clients import cdc
from clients.client_app import DeviceWork, begun
from clients.device.answering import Student
from clients.device.feed import round_key
from clients.device.mailbox import Order
from clients.device.own_source import OwnSource
from clients.device.settings import Bundle
from clients.device.spool import Spool, Spooled
from clients.inference import alone
from clients.store import Store
from clients.task import Task

LONGEST = 2**16 - 1  # ids of a question or answer in a frame


class OrderError(ValueError):
    """An order that is none."""


def read(order: Order) -> tuple[RecordDict, int | None, int]:
    """The records of an order, and the last round in which the cloud took this device's reply, None = it does
    not say, and the last in which it refused it, 0 = none.

    Raises:
        OrderError: it has not the form of an order.
    """
    try:
        content = state_of(order.content)
        said = content.config_records[keys.CONFIG]
        round, work = said[keys.ROUND], said[keys.WORK]
        taken, refused = said.get(keys.TAKEN), said.get(keys.REFUSED, 0)
    except Exception as err:  # protobuf's own, or a record or key that is not there
        raise OrderError(f"no order: {type(err).__name__}: {err}") from None
    if round != order.round or order.round < 1 or not isinstance(work, str):
        raise OrderError(f"an order of round {round!r} for {work!r}; expected round {order.round}")
    for receipt in (0 if taken is None else taken, refused):
        if not isinstance(receipt, int) or isinstance(receipt, bool):
            raise OrderError(f"an order with receipt {receipt!r}; allowed: a round")
    return content, taken, refused  # type: ignore[return-value]


def chosen(spool: Spool, round: int, most: int) -> list[Spooled]:
    """The samples of a round: what came with its order, then of the others those that `waiting` has first."""
    due = spool.waiting(most, round_key(round))
    known = {s.id for s in due}
    rest = sorted(
        (s for s in spool.waiting(most) if s.id not in known), key=lambda s: (s.tries, -s.value, s.id)
    )
    return due + sorted(rest[: most - len(due)], key=lambda s: s.id)


def task(
    bundle: Bundle,
    student: Student,
    content: RecordDict,
    samples: Sequence[Spooled],
    store: Store,
    secret: bytes,
) -> Task:
    """The task of an order, over samples of the spool."""
    round = int(content.config_records[keys.CONFIG][keys.ROUND])  # type: ignore[arg-type]
    longest = student.prompt([Grid(*s.grid) for s in samples])
    source = OwnSource(round, samples, longest, student.models.compression)
    number = bundle.device.number
    return Task(student.config, student.shared, source, number, round, content, store, secret)


def _nothing(now: cdc.Round) -> tuple[bytes, int, int]:
    return b"", 0, 0


WITHOUT_SAMPLES: Mapping[str, DeviceWork] = {"clients.cdc:work": partial(cdc.work, choose=_nothing)}
"""Device work that cannot choose among no samples -> the same, which does not choose."""


def work(now: Task) -> RecordDict:
    """Do a task; the reply.

    Raises:
        Exception: what the work raises.
    """
    if len(now.items) == 0 and (without := WITHOUT_SAMPLES.get(str(now.order[keys.WORK]))):
        return alone(without(now))
    return alone(begun(now))


def went_up(reply: RecordDict, student: Student, samples: Sequence[Spooled]) -> list[int]:
    """Numbers of the samples that a reply has: those in its frame, all where it has another array."""
    if keys.ARRAYS not in reply:
        return []
    frame, shared, uplink = frame_of(reply), student.shared, student.config.uplink
    fits, vocab, most = shared.fits, shared.vocab, len(frame)
    limits = Limits(max(1, len(samples)), LONGEST, LONGEST)
    try:
        if uplink.unit in FORMS:
            batch, _ = picture_batch.decode(
                frame, uplink.unit, shared.patch, fits, vocab, most, limits=limits
            )
        else:
            turn = shared.transform_for(uplink)
            batch = token_batch.decode(frame, fits, shared.width, vocab, most, limits=limits, transform=turn)
    except FrameError:
        return [s.id for s in samples]
    return [samples[s.index].id for s in batch.samples]


def update_refused(content: RecordDict, reply: RecordDict) -> bool:
    """Whether the device has another version, after an order, than the one that the order brings it to."""
    newest = content.config_records[keys.CONFIG].get(keys.VERSION)
    metrics = reply.metric_records.get(keys.METRICS, {})
    return newest is not None and keys.VERSION in metrics and metrics[keys.VERSION] != newest


def synced(folder: Path) -> None:
    """Have the adapters in a folder on the disk, before a transaction names one."""
    for path in [*folder.glob("*.npy"), folder] if folder.is_dir() else []:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
