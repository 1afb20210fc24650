"""The lower arm: the compressed student as shipped, never adapted. Devices answer, nothing is sent and
nothing learned.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn

from cdc_flower.checkpoint import Saved
from cdc_flower.config import Config
from cdc_flower.data.world import World
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.wire import keys
from strategies.base import Fleet
from strategies.traits import Traits

TRAITS = Traits(labels=False, device_backprop=False)


class Static(Strategy):
    """Ask devices to answer; its messages drive the simulation and are no traffic of a method.

    Args:
        fleet: the devices, with `counted=False`.
        model: the student as deployed, in float, for evaluation.
    """

    def __init__(self, fleet: Fleet, model: nn.Module) -> None:
        self.fleet, self.model = fleet, model
        self.metrics: dict[str, float] = {}

    def initial_arrays(self) -> ArrayRecord:
        """The adapter of version 0, float32."""
        return ArrayRecord({keys.PAYLOAD: Array(adapters.read(self.model))})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        order = ConfigRecord({keys.WORK: "static", keys.ROUND: server_round})
        return self.fleet.ask(
            grid, server_round, MessageType.TRAIN, lambda _: RecordDict({keys.CONFIG: order})
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        answers = self.fleet.answers(replies)
        self.fleet.require(server_round, sum([self.fleet.enter(d, r) for d, r in answers.items()]))
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.fleet.ask_counts(grid, server_round)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.fleet.add_counts(server_round, replies)

    def parts(self) -> dict[str, Saved]:
        """What a checkpoint holds: the ledger and the counts; nothing else ever changes."""
        return {"fleet": self.fleet}

    def summary(self) -> None:
        """Nothing to say beyond the name."""


def build(config: Config, shared: Shared, world: World) -> Static:
    """The strategy of a run."""
    return Static(Fleet.of(config, counted=False), twin_model(shared, config.pair))
