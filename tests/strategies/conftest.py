"""Devices that answer what a test tells them, in front of a real strategy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower.fleet.engines.local_grid import LocalGrid
from cdc_flower.wire.counts import Counts

Train = Callable[[int, RecordDict], RecordDict]


@pytest.fixture
def fake_devices() -> Callable[[Train], LocalGrid]:
    """`fake_devices(train)`: three devices in a grid; `train(device, content)` is what each replies with.

    Where it has metrics, they are given counts and seconds, as every device work has them.
    """

    def make(train: Train) -> LocalGrid:
        app = ClientApp()

        @app.query()
        def query(message, context):
            device = context.node_config["partition-id"]
            return Message(RecordDict({"metrics": MetricRecord({"partition-id": device})}), reply_to=message)

        @app.train()
        def answer(message, context):
            content = train(context.node_config["partition-id"], message.content)
            if "metrics" in content:
                said = {**Counts().metrics(), "host-seconds": 0.0, **content["metrics"]}
                content["metrics"] = MetricRecord(said)
            return Message(content, reply_to=message)

        return LocalGrid(app, 3, {})

    return make
