"""The student as it was shipped: nothing goes up, nothing comes down. What a method adds is added to this."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import nn

from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Number
from cdc_flower.wire.reply import Form
from strategies.answers import Taken
from strategies.fleet import Fleet
from strategies.method import Method, Setup, Traits


class Static(Method):
    """Ask devices to answer; its messages drive the simulation and are no traffic of a method.

    Args:
        fleet: the devices, with `counted=False`.
        model: the student as deployed, in float, for evaluation.
    """

    name = "static"
    about = "the student as it was shipped"
    traits = Traits(labels=False, device_backprop=False, adapts=False)
    work = "clients.static:work"

    def __init__(self, fleet: Fleet, model: nn.Module) -> None:
        self.fleet, self.model = fleet, model
        self.metrics: dict[str, float] = {}
        self._initial = adapters.read(model)

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run."""
        return cls(setup.fleet(counted=False), twin_model(setup.shared, setup.config.pair))

    def adapter_of(self, device: int) -> np.ndarray:
        """Version 0 (P,) float32."""
        return self._initial

    def cloud_work(self, samples: int) -> CloudWork:
        """None."""
        return CloudWork()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let devices answer."""
        order = ConfigRecord({keys.WORK: self.work, keys.ROUND: server_round})
        return self.fleet.ask(
            grid, server_round, MessageType.TRAIN, lambda _: RecordDict({keys.CONFIG: order})
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Count who answered."""
        self.fleet.receive(server_round, replies, self.form(), lambda device, reply: Taken(None))
        return None, None

    def form(self) -> Form:
        """Numbers alone; nothing was sent."""
        none = dict.fromkeys((keys.VERSION, keys.UPLOADED, keys.TOKENS), Number(int, 0, 0))
        return Form({**none, **self.fleet.computed(self.fleet.samples)})
