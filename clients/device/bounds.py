"""How far a cloud may move a device's adapter: what is further from version 0 is not kept.

An update is checked for layout, size, finiteness and result when it is decoded; a cloud in other hands passes
all of it. This bound stops what is crude: a snapshot of rubbish, an adapter that was scaled until answers
are noise, a training run that diverged. A change that is small and harmful it lets through: who may change an
adapter may change what the model says. Runs of `scenes` are 0.3 away after 4 rounds.
"""

from __future__ import annotations

import numpy as np

from clients.store import Adapter


class TooFar(ValueError):
    """An adapter that the device does not keep."""


def moved(adapter: Adapter, initial: Adapter) -> float:
    """Distance of an adapter from version 0, over the length of version 0.

    Work that learns on the device keeps what else it needs behind the adapter; that does not count.
    """
    own = initial.flat.astype(np.float64)
    apart = adapter.flat[: len(own)].astype(np.float64) - own
    return float(np.linalg.norm(apart) / max(np.linalg.norm(own), np.finfo(np.float32).tiny))


def check(adapter: Adapter, initial: Adapter, most: float) -> None:
    """Refuse an adapter that is too far away.

    Args:
        adapter: the one that the device would keep.
        initial: version 0.
        most: the setting `furthest`; 0 = any distance.

    Raises:
        TooFar: it is further from version 0 than so many times the length of that.
    """
    if most and adapter != initial and (far := moved(adapter, initial)) > most:
        raise TooFar(
            f"version {adapter.version} is {far:.3g} lengths of version 0 away from it; this device allows "
            f"{most:g} (furthest in device.toml)"
        )
