"""How long work will still take, from how long it has taken so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

LEAST = 0.02  # of all that is to be done, before anything is said


@dataclass
class Left:
    """Estimates of several pieces of work, by a key each; a piece that begins anew is estimated anew.

    Attributes:
        clock: seconds, of any beginning.
    """

    clock: Callable[[], float] = time.monotonic
    seen: dict[Hashable, tuple[float, float, float, float]] = field(default_factory=dict)
    """Key -> what was done of it first and last, of what total, and the second of the first."""

    def of(self, key: Hashable, done: float, total: float) -> str:
        """ "3 min left", or "" where nothing can be said yet, or nothing is left."""
        start, last, of, since = self.seen.get(key, (done, done, total, self.clock()))
        if done < last or of != total:
            start, since = done, self.clock()
        self.seen[key] = (start, done, total, since)
        if done >= total or done - start < LEAST * total:
            return ""
        return f"{duration((self.clock() - since) / (done - start) * (total - done))} left"


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h": two digits at most."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
