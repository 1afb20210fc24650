"""A device's task without a server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord

from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from cdc_flower.models.shared import load_shared
from clients.task import Task


@pytest.fixture
def make_task(run_settings) -> Callable[..., Task]:
    """`make_task(device=0, round=1, order={...}, **settings)`."""

    def make(device: int = 0, round: int = 1, order: dict | None = None, **settings) -> Task:
        config = parse(run_settings(**settings))
        shared = load_shared(config.pair, "scenes")
        return Task(config, shared, load_world(config, shared), device, round, ConfigRecord(order or {}))

    return make
