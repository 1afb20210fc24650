"""Prequential counts are by domain, of one round, and leave the device only when asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from flwr.app import ConfigRecord, Context, Message, RecordDict

from cdc_flower.fleet.engines.local_grid import LocalGrid, node_id
from clients import evaluate
from clients.client_app import app


@dataclass(frozen=True, eq=False)
class World:
    train: pd.DataFrame


WORLD = World(
    pd.DataFrame({"drift_domain": ["source", "object", "object"], "answer": ["Red.", "two", "star"]})
)


def asked(round: int) -> Message:
    LocalGrid(app, 1, {})  # sets Flower's identity of this process
    return Message(
        RecordDict({"config": ConfigRecord({"server-round": round})}),
        dst_node_id=node_id(0),
        message_type="evaluate",
    )


def test_counts_are_by_domain_and_compare_normalised_answers():
    rows = np.array([0, 1, 2, 1])
    assert evaluate.counts(WORLD, rows, [" red", "two", "heart", "three"]) == {
        "source": (1, 1),
        "object": (1, 3),
    }


def test_counts_of_a_round_are_given_for_that_round_alone():
    context = Context(1, 1, {}, RecordDict(), {})
    evaluate.record(context.state, WORLD, np.array([0, 1]), ["red", "one"], round=3)
    found = app(asked(3), context).content["metrics"]
    assert {k: list(v) for k, v in found.items()} == {"source": [1, 1], "object": [0, 1]}
    assert dict(app(asked(4), context).content["metrics"]) == {}


def test_a_device_that_never_worked_has_no_counts():
    assert dict(app(asked(1), Context(1, 1, {}, RecordDict(), {})).content["metrics"]) == {}
