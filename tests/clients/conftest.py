"""A device's task without a server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord

from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from cdc_flower.models.pair import load_pair
from clients.task import Task


@pytest.fixture
def make_task(run_settings) -> Callable[..., Task]:
    """`make_task(device=0, round=1, order={...}, **settings)`."""

    def make(device: int = 0, round: int = 1, order: dict | None = None, **settings) -> Task:
        config = parse(run_settings(**settings))
        pair = load_pair(config.pair, "scenes")
        return Task(config, pair, load_world(config, pair), device, round, ConfigRecord(order or {}))

    return make
