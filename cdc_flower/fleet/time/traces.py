"""Availability: when each device is there, charging, and left alone by its owner.

A trace is a table of intervals [start, end) in seconds in which a device is online, each with two flags.
Between intervals it is away: it cannot be asked and its transfers rest. Time after the trace's period
begins it anew, so that two days serve a run of any length. Read and written as parquet or JSON (FedScale's
are pickles, which run code when read). The same arrays answer for one moment and 10,000 devices at once: an
index by device and a bisection over all of them together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cdc_flower.config import ConfigError

DAY = 86_400.0  # s
LONGEST = 1e12  # s, a period
MOST_DEVICES = 10**7
COLUMNS = {"device": "int64", "start": "float64", "end": "float64", "charging": "bool", "idle": "bool"}
"""Columns of a trace's table -> dtype. Rows of a device stand in order of time."""


@dataclass(frozen=True)
class Trace:
    """Intervals of n devices, k in all, by device and then by time. Built by `from_frame`, `read_trace`,
    `always` or `habits.generate`, which check it.

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

    def frame(self) -> pd.DataFrame:
        """The intervals as a table; columns as `COLUMNS`."""
        return pd.DataFrame(
            {
                "device": self._device,
                "start": self.start,
                "end": self.end,
                "charging": self.charging,
                "idle": self.idle,
            }
        ).astype(COLUMNS)


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


# --- tables and files ---------------------------------------------------------------------------------------


def from_frame(table: pd.DataFrame, devices: int, period: float, name: str = "trace") -> Trace:
    """Check a table of intervals (`COLUMNS`; rows of a device in order of time; other columns are ignored).

    Args:
        devices: how many the fleet has.
        period: s.
        name: what error messages call the table.

    Raises:
        ConfigError: a column or row that is not allowed; names the row (from 0) and what is allowed.
    """
    if isinstance(period, bool) or not isinstance(period, int | float) or not 1 <= period <= LONGEST:
        raise ConfigError(f"{name}: period = {period!r}; allowed: a number of seconds from 1 to {LONGEST:g}")
    if devices > MOST_DEVICES:
        raise ConfigError(f"{name}: {devices} devices; allowed: up to {MOST_DEVICES}")
    for column, kind in COLUMNS.items():
        if column not in table.columns:
            raise ConfigError(f"{name}: no column '{column}'; allowed: {', '.join(COLUMNS)}")
        values = table[column]
        fine = (
            pd.api.types.is_bool_dtype(values)
            if kind == "bool"
            else pd.api.types.is_integer_dtype(values)
            if kind == "int64"
            else pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        )
        gaps = values.isna().to_numpy()
        if len(table) and (not fine or gaps.any()):
            row = int(gaps.argmax())
            value = values.astype(object).iloc[row]
            raise ConfigError(f"{name}, row {row}: column '{column}' = {value!r}; allowed: {kind}, no gaps")
    columns = {c: table[c].to_numpy(dtype=kind) for c, kind in COLUMNS.items()}
    device, start, end = columns["device"], columns["start"], columns["end"]
    order = np.argsort(device, kind="stable")
    follows = np.zeros(len(order), bool)  # by place in `order`: the row before it is of the same device
    follows[1:] = device[order][1:] == device[order][:-1]
    previous = np.zeros(len(order))  # by row: start and end of the same device's row before it
    ended = np.zeros(len(order))
    previous[order[follows]] = start[order[np.flatnonzero(follows) - 1]]
    ended[order[follows]] = end[order[np.flatnonzero(follows) - 1]]
    rules = {
        f"device {{device}} is unknown; allowed: 0 to {devices - 1}": (device < 0) | (device >= devices),
        "[{start}, {end}) is not finite; allowed: finite seconds": ~(np.isfinite(start) & np.isfinite(end)),
        "start {start} is negative; allowed: seconds from 0": start < 0,
        "[{start}, {end}) ends before it has begun; allowed: end above start": end <= start,
        f"[{{start}}, {{end}}) is longer than the trace; allowed: end up to {period:g} s": end > period,
        "device {device} goes back in time from {previous} to {start}; allowed: rows of a device in order of "
        "time": start < previous,
        "[{start}, {end}) of device {device} overlaps the one before it, ending at {ended}; allowed: start "
        "from there on": start < ended,
    }
    for text, broken in rules.items():
        if broken.any():
            row = int(broken.argmax())
            raise ConfigError(
                f"{name}, row {row}: "
                + text.format(
                    device=device[row],
                    start=start[row],
                    end=end[row],
                    previous=previous[row],
                    ended=ended[row],
                )
            )
    offsets = np.searchsorted(device[order], np.arange(devices + 1))
    return Trace(
        float(period), offsets, start[order], end[order], columns["charging"][order], columns["idle"][order]
    )


def read_trace(path: Path | str, devices: int | None = None) -> Trace:
    """A trace from ".parquet" or ".json", as `write_trace` writes it.

    A parquet file made elsewhere needs the columns alone; its period is then its latest end.

    Args:
        devices: how many the fleet has; None = up to the highest number in the file.

    Raises:
        ConfigError: unreadable, another ending, or not allowed (see `from_frame`).
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".json"):
        raise ConfigError(f"trace '{path}'; allowed: a file ending in .parquet or .json")
    if not path.is_file():
        raise ConfigError(f"trace '{path}' does not exist; allowed: a .parquet or .json file")
    name = f"trace '{path}'"
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            period = table.attrs.get("period")
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            table = pd.DataFrame(content["intervals"], columns=list(COLUMNS))
            period = content["period"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        what = str(err).splitlines()[0] if str(err) else ""
        raise ConfigError(
            f"{name} cannot be read ({type(err).__name__}: {what}); allowed: columns "
            f'{", ".join(COLUMNS)}, and in JSON {{"period": s, "intervals": [[device, '
            "start, end, charging, idle], ...]}"
        ) from None
    if period is None:
        period = _largest(table, "end") or DAY
    if devices is None:
        devices = max(1, int(_largest(table, "device")) + 1)
    return from_frame(table, devices, period, name)


def _largest(table: pd.DataFrame, column: str) -> float:
    """The largest number of a column that is perhaps none; 0 where there is no number."""
    if column not in table.columns or not len(table):
        return 0.0
    numbers = np.asarray(pd.to_numeric(table[column], errors="coerce"), np.float64)
    return float(np.max(numbers, where=np.isfinite(numbers), initial=0.0))


def write_trace(path: Path | str, trace: Trace) -> None:
    """Write ".parquet" or ".json".

    Raises:
        ConfigError: another ending.
    """
    path, table = Path(path), trace.frame()
    if path.suffix == ".parquet":
        table.attrs = {"period": trace.period}
        table.to_parquet(path, index=False)
    elif path.suffix == ".json":
        rows = list(zip(*(table[c].tolist() for c in COLUMNS), strict=True))
        path.write_text(
            json.dumps({"period": trace.period, "intervals": rows}, allow_nan=False) + "\n", encoding="utf-8"
        )
    else:
        raise ConfigError(f"trace '{path}'; allowed: a file ending in .parquet or .json")
