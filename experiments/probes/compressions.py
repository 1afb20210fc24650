"""Whether a mixed fleet can share one adapter: devices of every compression wear every adapter.

The method runs once per seed and compression for the adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cdc_flower.config import Config, flat, parse
from cdc_flower.data.features import Progress
from cdc_flower.data.world import World
from cdc_flower.fleet.cost.roofline import COMPRESSIONS
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import device_model, twin_model
from experiments.probes.downlink import lineage
from strategies.accuracy import accuracy


def measure(config: Config, shared: Shared, world: World, tell: Progress) -> Iterator[dict[str, Any]]:
    """What devices of each compression answer, as deployed, with the adapter that was distilled for each (the
    devices of that run and the cloud's twin had its compression), and with none.
    """
    of = {name: parse({**flat(config), "pair.compression": name}) for name in reversed(COMPRESSIONS)}
    total, at = len(of) * (2 + len(of)), 0
    worn = {"none, as shipped": adapters.read(twin_model(shared, config.pair))}
    for name, one in of.items():
        worn[f"for {name}"] = lineage(one, shared, world)[-1]
        at += 1
        tell("probe of the compressions", at, total)
    for student, one in of.items():
        model = device_model(shared, one.pair)
        for arm, adapter in worn.items():
            with adapters.wearing(model, adapter):
                found = accuracy(model, shared, world)
            for domain, right in found.items():
                yield {"arm": arm, "student": student, "domain": domain, "accuracy": right}
            at += 1
            tell("probe of the compressions", at, total)
