"""Devices that answer what a test tells them, in front of a real strategy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower.fleet.engines.local_grid import LocalGrid

Train = Callable[[int, RecordDict], RecordDict]


@pytest.fixture
def fake_devices() -> Callable[[Train], LocalGrid]:
    """`fake_devices(train)`: three devices in a grid; `train(device, content)` is what each replies with."""

    def make(train: Train) -> LocalGrid:
        app = ClientApp()

        @app.query()
        def query(message, context):
            device = context.node_config["partition-id"]
            return Message(RecordDict({"metrics": MetricRecord({"partition-id": device})}), reply_to=message)

        @app.train()
        def answer(message, context):
            return Message(train(context.node_config["partition-id"], message.content), reply_to=message)

        return LocalGrid(app, 3, {})

    return make
