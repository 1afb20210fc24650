"""Device work of `cema`: samples whose answers are neither sure nor hopeless go up (arXiv 2402.17316).

A sample goes up where its mean entropy H lies in E_min < H < E_max, with all its tokens. E_max falls as the
student gets surer: it is the first bound times the mean of H over all samples so far, over that of the first
round. The device keeps the sums.
"""

from __future__ import annotations

import math

import numpy as np
from flwr.app import ConfigRecord

from clients import cdc
from clients.inference import Work
from clients.store import Store
from clients.task import Task

LOW, HIGH = 0.02, 0.4  # E_min and the first E_max, of the largest entropy there is
MET = "cema"  # what the device keeps: sum and number of entropies, and their mean after the first round


def band(store: Store, entropy: np.ndarray, largest: float) -> tuple[float, float]:
    """E_min and E_max after these entropies (B,), which are kept."""
    kept = store.state.config_records.get(MET) or {"sum": 0.0, "count": 0, "first": 0.0}
    total, count = float(kept["sum"]) + float(entropy.sum()), int(kept["count"]) + len(entropy)  # type: ignore[arg-type]
    mean = total / max(1, count)
    first = float(kept["first"]) or mean  # type: ignore[arg-type]
    store.state[MET] = ConfigRecord({"sum": total, "count": count, "first": first})
    return LOW * largest, HIGH * largest * (mean / first if first else 1.0)


def choose(now: cdc.Round) -> tuple[bytes, int, int]:
    """The samples in the band, as `cdc.whole` has them."""
    entropy = now.answers.entropy
    low, high = band(now.task.store, entropy, math.log(now.task.shared.vocab))
    chosen = np.flatnonzero((low < entropy) & (entropy < high)).tolist()
    return cdc.whole(now, chosen, entropy)


def work(task: Task) -> Work:
    """One round of `cema` on a device."""
    return (yield from cdc.work(task, choose=choose))
