"""Generated availability, for whoever has no trace: nights on the charger, days of coming and going, time
zones.

The shape follows what production systems report: phones are eligible (idle, charging, on an unmetered
network) mostly at night, and their number swings by about 4 over a day (Bonawitz et al., arXiv 1902.01046,
section 9); state changes of real phones are many and short (Yang et al., arXiv 2006.06983). The numbers in
`HABITS` are assumptions that give a swing of that size, not measurements. A device's trace depends on the
seed, the days and its number alone, not on how many others there are: it has its own row of one table of
uniform numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from cdc_flower.config import ConfigError
from cdc_flower.draws import generator
from cdc_flower.fleet.cost.profiles import CLASSES
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.time.trace_files import read_trace
from cdc_flower.fleet.time.traces import DAY, Trace, always

HOUR = 3600.0  # s
STAYS = 24  # at most so many a day after the night; what would follow is spent away
DRAWS = 7  # uniform numbers for each stay
MOST_BYTES = 2**32  # of draws


@dataclass(frozen=True)
class Habits:
    """How devices of one class are used; times in local hours.

    Attributes:
        night: mean hour at which the night on the charger begins.
        night_hours: how long it lasts, mean.
        spread: half the width of the triangular distribution around both.
        online_hours, away_hours: mean lengths of a day's stays and of the gaps before them, exponential.
        charging: share of a day's stays on a charger.
        idle: share of a day's stays in which the owner leaves the device alone.
        outage_every, outage_hours: mean time until a stay loses the network, at most once, and for how long.
    """

    night: float
    night_hours: float
    spread: float
    online_hours: float
    away_hours: float
    charging: float
    idle: float
    outage_every: float
    outage_hours: float


HABITS = {
    "board": Habits(23.0, 7.5, 0.0, 4.0, 0.0, 1.0, 1.0, 48.0, 0.2),
    "phone": Habits(23.0, 7.5, 2.5, 1.2, 1.0, 0.6, 0.7, 24.0, 0.1),
    "laptop": Habits(22.0, 8.0, 3.0, 2.0, 1.5, 0.5, 0.4, 24.0, 0.1),
    "pc": Habits(23.0, 8.0, 2.0, 4.0, 0.0, 1.0, 0.6, 48.0, 0.2),
}
"""Device class -> habits. Boards and PCs are on mains: no gaps, always charging."""
assert set(HABITS) == set(CLASSES)


def generate(classes: Sequence[str], seed: int, days: int = 2, zones: Sequence[float] = (0.0,)) -> Trace:
    """A trace of a fleet.

    Args:
        classes: the class of each device (`devices.Devices.classes`).
        seed: of all draws.
        days: length of the period.
        zones: offsets from UTC in hours; each device lives in one. Time 0 of the trace is 00:00 UTC.

    Raises:
        ConfigError: no device, no day, no zone, or a zone that is none.
    """
    if not len(classes) or days < 1:
        raise ConfigError(f"a trace of {len(classes)} devices and {days} days; allowed: at least 1 of each")
    if not zones or not all(-12 <= zone <= 14 for zone in zones):
        raise ConfigError(f"time zones {list(zones)!r}; allowed: offsets from UTC in hours, -12 to 14")
    n, period = len(classes), days * DAY
    needed = 8 * n * (1 + days * (STAYS + 1) * DRAWS)
    if needed > MOST_BYTES:
        raise ConfigError(
            f"a generated trace of {n} devices and {days} days needs {needed / 1e9:.3g} GB; "
            f"allowed: up to {MOST_BYTES / 1e9:.3g} GB, with fewer devices or days"
        )
    drawn = generator(seed, "fleet/trace").random((n, 1 + days * (STAYS + 1) * DRAWS))
    zone = np.array(zones)[(drawn[:, 0] * len(zones)).astype(np.int64)] * HOUR
    table = np.array([astuple(HABITS[name]) for name in classes])[:, :, None].transpose(1, 0, 2)
    u = drawn[:, 1:].reshape(n, days, STAYS + 1, DRAWS)
    start, end, charging, idle = _stays(table, u)
    length = end - start
    every, lost_hours = table[7][:, :, None], table[8][:, :, None]
    lost = start - np.log1p(-u[..., 5]) * every * HOUR  # where the network fails, if before the stay's end
    back = lost - np.log1p(-u[..., 6]) * lost_hours * HOUR
    device = np.broadcast_to(np.arange(n)[:, None, None], length.shape)
    parts = [(device, start, np.minimum(lost, end), charging, idle), (device, back, end, charging, idle)]
    rows = [np.concatenate([part[j].ravel() for part in parts]) for j in range(5)]
    kept = rows[2] > rows[1]
    return _in_order(n, period, zone, *(column[kept] for column in rows))


def _stays(table: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Start and end in local seconds, charging and idle; (n, days, STAYS + 1), the night first in each day.

    A day runs from the begin of its night to that of the next; the last day's next night is the first one, a
    period later.
    """
    night, night_hours, spread, online, away, charging, idle = table[:7]  # (n, 1) each
    days = u.shape[1]
    tent = u[:, :, 0, :4]
    begins = (np.arange(days) * 24 + night + spread * (tent[..., 0] + tent[..., 1] - 1)) * HOUR
    lasts = (night_hours + spread * (tent[..., 2] + tent[..., 3] - 1)) * HOUR
    following = np.concatenate([begins[:, 1:], begins[:, :1] + days * DAY], axis=1)
    stay = -np.log1p(-u[..., 1:, 0]) * online[..., None] * HOUR
    gap = -np.log1p(-u[..., 1:, 1]) * away[..., None] * HOUR
    ends = (begins + lasts)[..., None] + np.cumsum(gap + stay, axis=-1)
    start = np.concatenate([begins[..., None], ends - stay], axis=-1)
    end = np.concatenate([(begins + lasts)[..., None], ends], axis=-1)
    end[..., -1] = np.where(away > 0, end[..., -1], np.inf)  # a device that never leaves stays to the end
    end = np.minimum(end, following[..., None])
    at_night = np.arange(u.shape[2]) == 0
    plugged = at_night | (u[..., 2] < charging[..., None])
    alone = at_night | (u[..., 3] < idle[..., None])
    return start, end, plugged, alone


def _in_order(
    n: int,
    period: float,
    zone: np.ndarray,
    device: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    charging: np.ndarray,
    idle: np.ndarray,
) -> Trace:
    """The intervals in UTC within [0, period), by device and time; what crosses the end goes on at 0."""
    begins = (start - zone[device]) % period
    ends = begins + (end - start)
    over = ends > period
    device, charging, idle = (np.concatenate([column, column[over]]) for column in (device, charging, idle))
    begins, ends = (
        np.concatenate([begins, np.zeros(int(over.sum()))]),
        np.concatenate([np.minimum(ends, period), ends[over] - period]),
    )
    order = np.lexsort((begins, device))
    device, begins, ends = device[order], begins[order], ends[order]
    same = device[1:] == device[:-1]
    ends[:-1][same] = np.minimum(ends[:-1], begins[1:])[same]  # rounding: neighbours may overlap by 1e-10 s
    kept = ends > begins
    offsets = np.searchsorted(device[kept], np.arange(n + 1))
    return Trace(period, offsets, begins[kept], ends[kept], charging[order][kept], idle[order][kept])


def availability(settings: FleetConfig, classes: Sequence[str], seed: int) -> Trace:
    """The trace of a run: read from a file, of devices that are always there, or generated.

    Raises:
        ConfigError: a file that cannot be used, or settings that make no trace.
    """
    if settings.trace == "always":
        return always(len(classes))
    if settings.trace:
        return read_trace(settings.trace, len(classes))
    try:
        zones = [float(zone) for zone in settings.zones.split(",")]
    except ValueError:
        raise ConfigError(
            f"setting 'fleet.zones' = '{settings.zones}'; allowed: a comma list of offsets from UTC in hours"
        ) from None
    return generate(classes, seed, settings.trace_days, zones)
