"""Device-tasks: a download, work and an upload, when each would end, and where the time went.

Transfers rest while the device is away, work does not. Arrays over all tasks of a round; a task knows nothing
of rounds, deadlines or the others.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from cdc_flower.fleet.cost.profiles import Devices
from cdc_flower.fleet.time import battery
from cdc_flower.fleet.time.network import down_seconds, up_seconds
from cdc_flower.fleet.time.traces import Trace


@dataclass(frozen=True)
class Tasks:
    """What m devices are asked to do in a round; arrays (m,), by device, each device once.

    Attributes:
        device: int64.
        down_bytes, up_bytes: of the messages.
        work_seconds: between them (`roofline.work_seconds`); infinite where no answer will ever come.
    """

    device: np.ndarray
    down_bytes: np.ndarray
    work_seconds: np.ndarray
    up_bytes: np.ndarray

    def __post_init__(self) -> None:
        if len(self.device) and not (np.diff(self.device) > 0).all():
            raise ValueError("the devices of a round must ascend, each once")
        for name in ("down_bytes", "work_seconds", "up_bytes"):
            values = np.asarray(getattr(self, name))
            fine = (values >= 0) & (np.isfinite(values) | (name == "work_seconds"))
            if values.shape != self.device.shape or not fine.all():
                raise ValueError(f"{name} of a round must be one number from 0 for each device, bytes finite")


@dataclass(frozen=True)
class Plan:
    """When the phases of tasks end; arrays (m,), s. Infinite: never.

    `down`, `up` are the seconds online that the transfers take.
    """

    device: np.ndarray
    round: np.ndarray
    begin: np.ndarray
    downloaded: np.ndarray
    worked: np.ndarray
    finish: np.ndarray
    down: np.ndarray
    up: np.ndarray

    def __len__(self) -> int:
        return len(self.device)

    def rows(self, chosen: np.ndarray) -> Plan:
        """The tasks that a mask (m,) or places name."""
        return Plan(*(getattr(self, f.name)[chosen] for f in dataclasses.fields(self)))

    def with_more(self, more: Plan) -> Plan:
        """These tasks, then those."""
        return Plan(
            *(
                np.concatenate([getattr(self, f.name), getattr(more, f.name)])
                for f in dataclasses.fields(self)
            )
        )


@dataclass(frozen=True)
class Spent:
    """Where the time of tasks went; arrays (m,), s. `offline`: a transfer rested. `wait`: the device had
    finished, or was off, and the round went on.
    """

    download: np.ndarray
    work: np.ndarray
    upload: np.ndarray
    offline: np.ndarray
    wait: np.ndarray


def plan(tasks: Tasks, devices: Devices, trace: Trace, begin: float, round: int) -> Plan:
    """When each phase of tasks that begin now would end, as far as network and trace decide it."""
    own = devices.rows(tasks.device)
    down = np.broadcast_to(down_seconds(own, tasks.down_bytes), tasks.device.shape)
    up = np.broadcast_to(up_seconds(own, tasks.up_bytes), tasks.device.shape)
    downloaded = trace.finish(tasks.device, begin, down)
    worked = downloaded + tasks.work_seconds
    finish = trace.finish(tasks.device, worked, up)
    m = len(tasks.device)
    return Plan(tasks.device, np.full(m, round), np.full(m, begin), downloaded, worked, finish, down, up)


def spent(plan: Plan, trace: Trace, cut: np.ndarray, until: np.ndarray) -> Spent:
    """Where the time from `begin` to `until` went, for tasks given up at `cut`; arrays (m,), s."""
    a, b, c = (np.minimum(t, cut) for t in (plan.downloaded, plan.worked, plan.finish))
    begun, fetched, sent, ended = (trace.online_seconds(plan.device, t) for t in (plan.begin, a, b, c))
    down = np.where(plan.downloaded <= cut, plan.down, np.clip(fetched - begun, 0.0, plan.down))
    up = np.where(plan.finish <= cut, plan.up, np.clip(ended - sent, 0.0, plan.up))
    work = b - a
    offline = np.maximum(c - plan.begin - down - work - up, 0.0)
    return Spent(down, work, up, offline, np.maximum(until - c, 0.0))


def draws(plan: Plan, devices: Devices, trace: Trace, cut: np.ndarray) -> battery.Spans:
    """What the phases of tasks draw above idle; a transfer that rests draws its mean over the phase."""
    a, b, c = (np.minimum(t, cut) for t in (plan.downloaded, plan.worked, plan.finish))
    used = spent(plan, trace, cut, c)
    own = devices.rows(plan.device)
    radio, compute = own.radio_power - own.idle_power, own.compute_power - own.idle_power
    phases = [
        (plan.begin, a, used.download * radio),
        (a, b, used.work * compute),
        (b, c, used.upload * radio),
    ]
    begin, end, energy = (np.concatenate(parts) for parts in zip(*phases, strict=True))
    watts = np.divide(energy, end - begin, out=np.zeros(len(energy)), where=end > begin)
    return battery.Spans(np.tile(plan.device, 3), begin, end, watts)
