"""Availability: when each device is there, charging, and left alone by its owner.

A trace is a table of intervals [start, end) in seconds in which a device is online, each with two flags.
Between intervals it is away: it cannot be asked and its transfers rest. Time after the trace's period
begins it anew, so that two days serve a run of any length. The same arrays answer for one moment and 10,000
devices at once: an index by device and a bisection over all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

DAY = 86_400.0  # s


@dataclass(frozen=True)
class Trace:
    """Intervals of n devices, k in all, by device and then by time. Built by `trace_files`,
    `availability.generate` or `always`, which check it.

    Attributes:
        period: seconds after which it begins anew.
        offsets: (n + 1,) int64; the intervals of device i are rows offsets[i] .. offsets[i + 1] - 1.
        start, end: (k,) float64 s, 0 <= start < end <= period.
        charging, idle: (k,) bool.
    """

    period: float
    offsets: np.ndarray
    start: np.ndarray
    end: np.ndarray
    charging: np.ndarray
    idle: np.ndarray

    def __len__(self) -> int:
        """How many devices."""
        return len(self.offsets) - 1

    @cached_property
    def _device(self) -> np.ndarray:
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def _before(self) -> np.ndarray:
        """(k + n,): online seconds of its device before each interval, and after the last; those of device i
        begin at offsets[i] + i.
        """
        out = np.zeros(len(self.start) + len(self))
        for i in range(len(self)):
            lo, hi = self.offsets[i], self.offsets[i + 1]
            np.cumsum(self.end[lo:hi] - self.start[lo:hi], out=out[lo + i + 1 : hi + i + 1])
        return out

    @cached_property
    def online_per_period(self) -> np.ndarray:
        """(n,) s."""
        return self._before[self.offsets[1:] + np.arange(len(self))]

    # --- at a moment ---

    def _last_begun(self, device: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """(m,) row of the device's last interval with start <= moment; offsets[device] - 1 if none."""
        return _bisect(self.start, self.offsets[device], self.offsets[device + 1], moment) - 1

    def _rows_at(self, device: np.ndarray, time: Any) -> np.ndarray:
        """(m,) row of the interval that holds `time`, -1 while the device is away."""
        moment = np.broadcast_to(np.asarray(time, np.float64) % self.period, device.shape)
        row = self._last_begun(device, moment)
        inside = row >= self.offsets[device]
        inside[inside] = moment[inside] < self.end[row[inside]]
        return np.where(inside, row, -1)

    def online(self, device: np.ndarray, time: Any) -> np.ndarray:
        """Whether the devices (m,) are online at `time` (s, a number or (m,)): (m,) bool."""
        return self._rows_at(np.asarray(device, np.int64), time) >= 0

    def suitable(self, time: float, need_charging: bool = False, need_idle: bool = False) -> np.ndarray:
        """Which devices are online and meet the conditions: (n,) bool."""
        row = self._rows_at(np.arange(len(self)), time)
        fine = row >= 0
        if fine.any():
            fine &= (self.charging[row] | (not need_charging)) & (self.idle[row] | (not need_idle))
        return fine

    def ever(self, need_charging: bool = False, need_idle: bool = False) -> bool:
        """Whether any device is ever online and meets the conditions."""
        return bool(((self.charging | (not need_charging)) & (self.idle | (not need_idle))).any())

    # --- transfers that rest while the device is away ---

    def online_seconds(self, device: np.ndarray, time: Any) -> np.ndarray:
        """Online seconds of the devices (m,) in [0, time): (m,) float64."""
        device = np.asarray(device, np.int64)
        whole, moment = np.divmod(np.broadcast_to(np.asarray(time, np.float64), device.shape), self.period)
        row = self._last_begun(device, moment)
        begun = row >= self.offsets[device]
        own = np.zeros(device.shape)
        at = row[begun]
        part = np.minimum(moment[begun], self.end[at]) - self.start[at]
        own[begun] = self._before[at + device[begun]] + part
        return whole * self.online_per_period[device] + own

    def finish(self, device: np.ndarray, start: Any, seconds: Any) -> np.ndarray:
        """When devices (m,) that begin at `start` have been online for `seconds`: (m,) float64.

        0 seconds end at once; infinity where the device is never online, or `start` is infinite.
        """
        device = np.asarray(device, np.int64)
        start = np.broadcast_to(np.asarray(start, np.float64), device.shape)
        seconds = np.broadcast_to(np.asarray(seconds, np.float64), device.shape)
        out = np.where(seconds > 0, np.inf, start)
        work = np.isfinite(start) & (seconds > 0) & (self.online_per_period[device] > 0)
        device, start, seconds = device[work], start[work], seconds[work]
        if not len(device):
            return out
        row = self._rows_at(device, start)
        ahead = np.where(row >= 0, self.end[row] - start % self.period, -1.0)
        total = self.online_per_period[device]
        wanted = self.online_seconds(device, start) + seconds
        periods = np.maximum(np.ceil(wanted / total) - 1, 0)
        rest = np.minimum(wanted - periods * total, total)
        first = self.offsets[device] + device
        last = self.offsets[device + 1] + device
        reached = _bisect(self._before, first, last, rest, left=True)
        at = np.maximum(reached - 1, first)  # the interval in which `rest` is reached
        late = periods * self.period + self.start[at - device] + rest - self._before[at]
        out[work] = np.where(seconds <= ahead, start + seconds, np.maximum(late, start + seconds))
        return out

    # --- changes ---

    def changes(
        self, begin: float, end: float, need_charging: bool = False, need_idle: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """When devices begin or cease to be online and meet the conditions.

        Args:
            begin, end: s; changes in (begin, end] are returned.

        Returns:
            time (c,) float64 in order, device (c,) int64, and whether it begins (c,) bool; at equal times
            what ceases stands first, then by device.
        """
        time, device, begins = self._changes[need_charging, need_idle]
        parts = []
        for tile in range(int(begin // self.period), int(end // self.period) + 1):
            shifted = time + tile * self.period
            kept = slice(np.searchsorted(shifted, begin, "right"), np.searchsorted(shifted, end, "right"))
            parts.append((shifted[kept], device[kept], begins[kept]))
        times, devices, ups = (np.concatenate(column) for column in zip(*parts, strict=True))
        return times, devices, ups

    @cached_property
    def _changes(self) -> dict[tuple[bool, bool], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return {
            (c, i): self._changes_of((self.charging | (not c)) & (self.idle | (not i)))
            for c in (False, True)
            for i in (False, True)
        }

    def _changes_of(self, fine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Changes of one period, in (0, period]; intervals that touch are one, also across its end."""
        start, end, device = self.start[fine], self.end[fine], self._device[fine]
        touches = np.zeros(len(start) + 1, bool)  # whether interval j begins where j - 1 of its device ends
        touches[1:-1] = (device[1:] == device[:-1]) & (start[1:] == end[:-1])
        begins, ends = ~touches[:-1], ~touches[1:]
        through = np.intersect1d(device[start == 0], device[end == self.period])
        begins &= ~((start == 0) & np.isin(device, through))
        ends &= ~((end == self.period) & np.isin(device, through))
        first = np.where(start[begins] == 0, self.period, start[begins])  # 0 is the end of the period before
        time = np.concatenate([end[ends], first])
        whose = np.concatenate([device[ends], device[begins]])
        up = np.repeat([False, True], [int(ends.sum()), int(begins.sum())])
        order = np.lexsort((whose, up, time))
        return time[order], whose[order], up[order]


def _bisect(
    values: np.ndarray, lo: np.ndarray, hi: np.ndarray, x: np.ndarray, left: bool = False
) -> np.ndarray:
    """For each j the first place in values[lo[j]:hi[j]], ascending, > x[j] (`left`: >= x[j])."""
    lo, hi = lo.copy(), hi.copy()
    if not len(values):
        return lo
    while (going := lo < hi).any():
        middle = (lo + hi) // 2
        value = values[np.minimum(middle, len(values) - 1)]
        right = going & ((value < x) if left else (value <= x))
        lo = np.where(right, middle + 1, lo)
        hi = np.where(going & ~right, middle, hi)
    return lo


def always(devices: int, period: float = DAY) -> Trace:
    """Every device online, charging and idle at all times."""
    return Trace(
        period,
        np.arange(devices + 1),
        np.zeros(devices),
        np.full(devices, float(period)),
        np.ones(devices, bool),
        np.ones(devices, bool),
    )
