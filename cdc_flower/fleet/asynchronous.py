"""The asynchronous pace: no rounds; the cloud distils whenever enough batches have come in.

Discrete events on a heap (FedBuff, arXiv 2106.06639): at most `in_flight` devices are at work; whoever is
done makes room for another, and each `buffer` answers make a new version. An answer that was begun `s`
versions ago counts (1 + s)^-power (FedAsync, arXiv 1903.03934). Events are ordered by time, then kind, then
device, so equal seeds give equal runs. Batteries are not played here: `begin` may refuse to let a device
finish.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.traces import Trace

ARRIVES, GIVES_UP, CEASES, BEGINS = range(4)  # the order of events at one moment
Begin = Callable[[int, float, int], float]
"""`begin(device, now, version)` -> when its answer arrives (s, after `now`), infinite for never."""


@dataclass(frozen=True)
class Step:
    """Enough batches have come in. Arrays (b,), in the order of arrival.

    Attributes:
        time: s.
        version: the one that the cloud makes of them; from 1.
        device: int64.
        based_on: int64, the version each device had.
        arrived: s.
        weight: float64.
        events: handled so far.
    """

    time: float
    version: int
    device: np.ndarray
    based_on: np.ndarray
    arrived: np.ndarray
    weight: np.ndarray
    events: int


def staleness_weight(staleness: np.ndarray, power: float) -> np.ndarray:
    """(1 + s)^-power: 1 for an answer to the newest version."""
    return (1.0 + np.asarray(staleness, np.float64)) ** -power


class _Pool:
    """Devices that may be asked; add, remove and draw in constant time."""

    def __init__(self, devices: list[int]) -> None:
        self.devices, self.place = devices, {device: i for i, device in enumerate(devices)}

    def add(self, device: int) -> None:
        self.place[device] = len(self.devices)
        self.devices.append(device)

    def remove(self, device: int) -> None:
        i, last = self.place.pop(device), self.devices.pop()
        if last != device:
            self.devices[i], self.place[last] = last, i


def _changes(trace: Trace, config: FleetConfig, begin: float,
             horizon: float) -> Iterator[tuple[float, int, int]]:
    """(time, CEASES or BEGINS, device) in (begin, horizon], in order."""
    if not len(trace.changes(begin, begin + trace.period, config.need_charging, config.need_idle)[0]):
        return  # not in this period, so never
    while begin < horizon:
        end = min(begin + trace.period, horizon)
        time, device, up = trace.changes(begin, end, config.need_charging, config.need_idle)
        yield from zip(time.tolist(), np.where(up, BEGINS, CEASES).tolist(), device.tolist(), strict=True)
        begin = end


def run(trace: Trace, config: FleetConfig, seed: int, begin: Begin, horizon: float,
        start: float = 0.0) -> Iterator[Step]:
    """Play from `start` to `horizon`.

    Args:
        trace: who is there; a device at work finishes even if it leaves meanwhile, `begin` decides when.
        config: in_flight, buffer, staleness_power; conditions for being asked; a task that has not arrived
            after `deadline` seconds is given up.
        seed: of the draws among the devices that may be asked.
        begin: called when a device is asked.
        horizon: s; nothing happens after it.
        start: s.

    Yields:
        Each step as it happens; what is begun after it has its version. Ends at the horizon, or earlier when
        nothing can happen any more.

    Raises:
        ValueError: `begin` returned a time that is not after now.
    """
    rng = random.Random(f"{seed}/fleet/async")
    there = trace.suitable(start, config.need_charging, config.need_idle).tolist()
    pool = _Pool([device for device, up in enumerate(there) if up])
    heap: list[tuple[float, int, int]] = []
    based_on: dict[int, int] = {}
    came: list[tuple[int, int, float]] = []  # device, version it had, time
    changes = _changes(trace, config, start, horizon)
    change = next(changes, None)
    now, version, events = start, 0, 0
    while True:
        while pool.devices and len(heap) < config.in_flight:
            device = pool.devices[int(rng.random() * len(pool.devices))]
            pool.remove(device)
            arrives = begin(device, now, version)
            if not arrives > now:
                raise ValueError(f"device {device}, asked at {now} s, answers at {arrives} s; allowed: later")
            based_on[device] = version
            given_up = now + config.deadline
            heapq.heappush(heap, (arrives, ARRIVES, device) if arrives <= given_up
                           else (given_up, GIVES_UP, device))
        if heap and (change is None or heap[0] <= change):
            now, kind, device = heapq.heappop(heap)
        elif change is not None:
            now, kind, device = change
            change = next(changes, None)
        else:
            return
        if now > horizon:
            return
        events += 1
        if kind in (BEGINS, CEASES):
            there[device] = kind == BEGINS
            if device not in based_on:
                (pool.add if kind == BEGINS else pool.remove)(device)
            continue
        base = based_on.pop(device)
        if there[device]:
            pool.add(device)
        if kind == ARRIVES:
            came.append((device, base, now))
        if len(came) == config.buffer:
            who, bases, times = (np.array(part) for part in zip(*came, strict=True))
            weight = staleness_weight(version - bases, config.staleness_power)
            version += 1
            came = []
            yield Step(now, version, who, bases, times, weight, events)
