"""Generated availability, for whoever has no trace: nights on the charger, days of coming and going, time zones.

The shape follows what production systems report: phones are eligible (idle, charging, on an unmetered network)
mostly at night, and the number that is swings by about 4 over a day (Bonawitz et al., arXiv 1902.01046, section
9); state changes of real phones are many and short (Yang et al., arXiv 2006.06983). The numbers in `HABITS` are
assumptions that reproduce that swing, not measurements. A device's trace depends on the seed and its number
alone, not on how many others there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdc_flower.config import ConfigError
from cdc_flower.data.stream import generator
from cdc_flower.fleet.devices import CLASSES
from cdc_flower.fleet.traces import DAY, Trace

HOUR = 3600.0  # s


@dataclass(frozen=True)
class Habits:
    """How devices of one class are used; times in local hours.

    Attributes:
        mains: always charging, and there all day but for outages.
        night: mean hour at which the night on the charger begins.
        night_spread: its standard deviation, h.
        night_hours: how long it lasts, mean; the standard deviation is `night_spread`.
        online_hours, away_hours: mean lengths of the stays of a day and of the gaps between them, exponential.
        idle: share of a day's stays in which the owner leaves the device alone.
        charging: share of a day's stays on a charger.
        outage_every, outage_hours: mean time between losses of the network while the device stays, and their
            mean length, h.
    """

    mains: bool
    night: float
    night_spread: float
    night_hours: float
    online_hours: float
    away_hours: float
    idle: float
    charging: float
    outage_every: float
    outage_hours: float


HABITS = {
    "board": Habits(True, 23.0, 0.5, 7.5, 0, 0, 1.0, 1.0, 48.0, 0.2),
    "pc": Habits(True, 23.0, 1.0, 8.0, 0, 0, 0.6, 1.0, 48.0, 0.2),
    "laptop": Habits(False, 22.0, 1.5, 8.0, 2.0, 1.5, 0.4, 0.5, 24.0, 0.1),
    "phone": Habits(False, 23.0, 1.2, 7.5, 1.2, 1.0, 0.6, 0.4, 24.0, 0.1),
}
"""Device class -> habits."""
assert set(HABITS) == set(CLASSES)


def generate(classes: Sequence[str], seed: int, days: int = 2, zones: Sequence[float] = (0.0,)) -> Trace:
    """A trace of a fleet.

    Args:
        classes: the class of each device (`devices.Devices.classes`).
        seed: of all draws.
        days: length of the period.
        zones: offsets from UTC in hours; each device lives in one of them. Time 0 of the trace is 00:00 UTC.

    Raises:
        ConfigError: no day, no zone, or a zone that is none.
    """
    if days < 1:
        raise ConfigError(f"a trace of {days} days; allowed: at least 1")
    if not zones or not all(-12 <= zone <= 14 for zone in zones):
        raise ConfigError(f"time zones {list(zones)!r}; allowed: offsets from UTC in hours, -12 to 14")
    period = days * DAY
    found = []
    for device, name in enumerate(classes):
        rng = generator(seed, "fleet/trace", device)
        shift = zones[int(rng.integers(len(zones)))] * HOUR
        found.append(_wrapped(_cut(_stays(HABITS[name], days, rng), HABITS[name], rng), shift, period))
    offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in found])]).astype(np.int64)
    rows = np.concatenate(found)
    return Trace(period, offsets, rows[:, 0], rows[:, 1], rows[:, 2] > 0, rows[:, 3] > 0)


def _stays(habits: Habits, days: int, rng: np.random.Generator) -> list[tuple[float, float, bool, bool]]:
    """(start, end, charging, idle) in local seconds, from the first night's begin to the one after the last."""
    spread = np.clip(rng.normal(size=(2, days)), -2, 2) * habits.night_spread
    begins = (np.arange(days) * 24 + habits.night + spread[0]) * HOUR
    lengths = np.maximum(habits.night_hours + spread[1], 1.0) * HOUR
    rows = []
    for night in range(days):
        begin, end = float(begins[night]), float(begins[night] + lengths[night])
        following = float(begins[night + 1]) if night + 1 < days else float(begins[0]) + days * DAY
        rows.append((begin, end, True, True))
        time = end
        while time < following:
            if habits.mains:
                stay, gap = HOUR * rng.exponential(4.0), 0.0
            else:
                gap, stay = HOUR * rng.exponential(habits.away_hours), HOUR * rng.exponential(habits.online_hours)
            begin, end = time + gap, min(time + gap + stay, following)
            if begin < end:
                rows.append((begin, end, bool(rng.random() < habits.charging), bool(rng.random() < habits.idle)))
            time += gap + stay
    return rows


def _cut(rows: list[tuple[float, float, bool, bool]], habits: Habits,
         rng: np.random.Generator) -> list[tuple[float, float, bool, bool]]:
    """The same stays without the outages in them."""
    out = []
    for begin, end, charging, idle in rows:
        time = begin
        while time < end:
            lost = time + HOUR * rng.exponential(habits.outage_every)
            out.append((time, min(lost, end), charging, idle))
            time = lost + HOUR * rng.exponential(habits.outage_hours)
    return out


def _wrapped(rows: list[tuple[float, float, bool, bool]], zone: float, period: float) -> np.ndarray:
    """(k, 4) rows in UTC within [0, period), in order; what crosses its end goes on at its beginning."""
    table = np.array([row for row in rows if row[1] > row[0]], dtype=np.float64)
    length = table[:, 1] - table[:, 0]
    table[:, 0] = (table[:, 0] - zone) % period
    table[:, 1] = table[:, 0] + length
    over = table[table[:, 1] > period].copy()
    over[:, 0], over[:, 1] = 0.0, over[:, 1] - period
    table[:, 1] = np.minimum(table[:, 1], period)
    table = np.concatenate([over[over[:, 1] > 0], table])
    table = table[np.argsort(table[:, 0], kind="stable")]
    table[:-1, 1] = np.minimum(table[:-1, 1], table[1:, 0])  # rounding may let neighbours overlap by 1e-10 s
    return table[table[:, 1] > table[:, 0]]
