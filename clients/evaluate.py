"""Prequential accuracy: every sample is answered before it can teach, and the answer is compared with the
truth.

The one module on the device side that reads labels, apart from the FedAvg arms that say that they do. What it
counts stays in the device's state until an EVALUATE message asks for it, so no label and nothing derived from
one is in any message that teaches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict

from cdc_flower.data.world import World
from cdc_flower.models.vlm import normalise
from cdc_flower.wire import keys

_STATE = "prequential"


@lru_cache(maxsize=4)
def _truth(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Domain and normalised answer of all train rows."""
    answers = world.train["answer"].map(lambda answer: normalise(str(answer)))
    return world.train["drift_domain"].to_numpy(object), answers.to_numpy(object)


def counts(world: World, rows: np.ndarray, texts: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Domain -> (correct, answered) of the answers `texts` to train rows `rows`."""
    domain, truth = (column[rows] for column in _truth(world))
    found: dict[str, tuple[int, int]] = {}
    for name, label, text in zip(domain, truth, texts, strict=True):
        right, total = found.get(name, (0, 0))
        found[name] = (right + (normalise(text) == label), total + 1)
    return found


def record(state: RecordDict, world: World, rows: np.ndarray, texts: Sequence[str], round: int) -> None:
    """Count a round's answers and keep the counts in the device's state."""
    lists = {name: list(pair) for name, pair in sorted(counts(world, rows, texts).items())}
    state[_STATE] = MetricRecord({keys.ROUND: round, **lists})


def evaluate(message: Message, context: Context) -> RecordDict:
    """Domain -> [correct, answered] of the round that the message names; nothing when the device did not work
    in it.
    """
    round = int(message.content.config_records[keys.CONFIG][keys.ROUND])
    kept = context.state.metric_records.get(_STATE, MetricRecord())
    found = {k: v for k, v in kept.items() if k != keys.ROUND} if kept.get(keys.ROUND) == round else {}
    return RecordDict({keys.METRICS: MetricRecord(found)})
