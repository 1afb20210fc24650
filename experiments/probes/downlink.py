"""Which codec loses least: one lineage of adapters, sent through every codec at every budget.

The method runs once per seed with dense float16 updates, and the adapter of every round is kept. Compared is
what a device answers after the last round. Uploads are the same for all codecs, which is what makes them
comparable (and leaves out that a device with a worse adapter asks other questions).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord

from cdc_flower.config import Config, flat, parse
from cdc_flower.data.features import Progress
from cdc_flower.data.world import World
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.downlink.versions import Mirror
from cdc_flower.fleet.engines.local_grid import LocalGrid
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.wire import keys
from clients import client_app
from strategies.accuracy import accuracy
from strategies.cdc import CDC
from strategies.run import prepare

FACTORS = (5, 10, 20, 50, 100)  # times below a dense float16 adapter


def measure(config: Config, shared: Shared, world: World, tell: Progress) -> Iterator[dict[str, Any]]:
    """What a device answers when the same lineage of adapters has come through each codec at each budget."""
    targets = lineage(config, shared, world)
    twin = twin_model(shared, config.pair)
    start = adapters.read(twin)
    layout: Any = adapters.layout(twin)  # its cached properties are properties, which no checker believes
    dense = 2 * len(start)
    arms = [(n, f) for n, codec in CODECS.items() for f in (FACTORS if codec.budgeted else (1,))]
    for at, (codec, factor) in enumerate(arms):
        mirror, sizes = Mirror(start, layout, codec, dense // factor, len(targets)), []
        for target in targets:
            held = mirror.newest
            mirror.advance(target)
            sizes.append(len(mirror.frame_for(held) or b""))
        arrived = mirror.adapter(mirror.newest)
        apart = float(np.linalg.norm(arrived - targets[-1]) / np.linalg.norm(targets[-1] - start))
        with adapters.wearing(twin, arrived) as model:
            found = accuracy(model, shared, world)
        for domain, right in found.items():
            yield {
                "arm": codec,
                "budget": dense // factor,
                "bytes": float(np.mean(sizes)),
                "domain": domain,
                "accuracy": right,
                "error": apart,
            }
        tell("probe of the downlink", at + 1, len(arms))


def lineage(config: Config, shared: Shared, world: World) -> list[np.ndarray]:
    """What codecs have to carry: the adapter (P,) after every round of a run with dense float16 updates."""
    dense = parse({**flat(config), "run.method": "cdc", "downlink.codec": "fp16"})
    strategy = CDC.build(prepare(dense))
    found: list[np.ndarray] = []

    def finished(round: int, arrays: ArrayRecord) -> MetricRecord:
        if round:
            found.append(arrays[keys.PAYLOAD].numpy().copy())
        return MetricRecord({})

    run = dense.run
    grid = LocalGrid(client_app.app, run.devices, flat(dense))
    start = strategy.initial_arrays()
    strategy.start(grid, start, num_rounds=run.rounds, timeout=run.round_timeout, evaluate_fn=finished)
    return found
