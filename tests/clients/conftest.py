"""A device's task without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

from cdc_flower.config import parse
from cdc_flower.data.source import publish, source
from cdc_flower.data.world import World, load_world
from cdc_flower.models.shared import load_shared
from cdc_flower.wire import keys
from cdc_flower.wire.messages import payload
from clients.store import Store
from clients.task import Task


@pytest.fixture
def make_task(run_settings) -> Callable[..., Task]:
    """`make_task(device=0, round=1, order={...}, frame=b"", store=Store(...), **settings)`."""

    def make(
        device: int = 0,
        round: int = 1,
        order: dict[str, Any] | None = None,
        frame: bytes | None = None,
        store: Store | None = None,
        **settings,
    ) -> Task:
        config = parse(run_settings(**settings))
        shared = load_shared(config.pair, "scenes")
        publish(config, shared, load_world(config, shared), labels=True)
        sent = RecordDict({keys.CONFIG: ConfigRecord({keys.VERSION: 0, **(order or {})})})
        if frame:
            sent[keys.ARRAYS] = payload(frame)
        own = source(config, shared, device)
        return Task(config, shared, own, device, round, sent, store or Store(RecordDict()))

    return make


@pytest.fixture
def world_of() -> Callable[[Task], World]:
    """The world that a task's source was published from; devices never see it."""
    return lambda task: load_world(task.config, task.shared)
