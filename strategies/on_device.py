"""Methods that learn on the device and share nothing: every device has an adapter of its own.

A message holds the order, a reply counts; both are in the ledger, because a server that only measures would
send them, too. Held-out accuracy is the experimenter's: EVALUATE messages, which are no traffic of a method,
ask the devices that are shown (`Setup.shown`) for their adapters. Nothing is made of them but that
accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from cdc_flower.checkpoint import Saved
from cdc_flower.config import Config
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.wire import keys
from cdc_flower.wire.reply import Form
from strategies.answers import Taken, learned
from strategies.method import Method, Setup


class OnDevice(Method):
    """Let devices work; a subclass says what they do.

    Attributes:
        work: the device work.
        shares: whether weights travel, for plans.
        order: what it needs besides.
        most: examples that a device may learn from in a round.
        reads: how often a round reads each of them.
        own: device -> the adapter (P,) float32 that it showed last.
    """

    work: ClassVar[str]
    shares: ClassVar[bool] = False

    order: dict[str, Any]
    most: int
    reads: int
    base: np.ndarray
    own: dict[int, np.ndarray]
    shown: list[int]

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run."""
        made = cls()
        made.fleet, made.metrics = setup.fleet(), {}
        made.model = twin_model(setup.shared, setup.config.pair)
        made.base, made.own = adapters.read(made.model), {}
        made.shown = setup.shown
        made.order, made.most, made.reads = cls.ordered(setup.config)
        return made

    @classmethod
    def ordered(cls, config: Config) -> tuple[dict[str, Any], int, int]:
        """The settings of the device work, how many examples a round has, and how often each is read."""
        raise NotImplementedError

    def adapter_of(self, device: int) -> np.ndarray:
        """What the device showed last (P,) float32: of those that are shown."""
        return self.own.get(device, self.base)

    def cloud_work(self, samples: int) -> CloudWork:
        """None: there is nothing to do."""
        return CloudWork()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let devices answer and learn."""
        order = ConfigRecord({**self.order, keys.WORK: self.work, keys.ROUND: server_round})
        return self.fleet.ask(
            grid, server_round, MessageType.TRAIN, lambda _: RecordDict({keys.CONFIG: order})
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Count who learned, and from how much."""
        heard = self.fleet.receive(server_round, replies, self.form(), lambda _, reply: Taken(reply.metrics))
        taught = [found for found in heard.values() if found[keys.EXAMPLES]]
        self.metrics = {"answered": len(heard), "taught_devices": len(taught)}
        if taught:
            self.metrics["loss"] = float(np.mean([found["loss"] for found in taught]))
        return None, None

    def form(self) -> Form:
        """How many examples a device learned from, and the loss."""
        return Form(learned(self.most, self.fleet.computed(self.most * self.reads)))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As of every method; those that are shown are asked for their adapters, too."""
        return self.fleet.ask_answers(grid, server_round, dict.fromkeys(self.shown, len(self.base)))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As of every method; the adapters are kept until they are measured."""
        return self.fleet.add_answers(server_round, replies, self.own.__setitem__)

    def parts(self) -> dict[str, Saved]:
        """The adapters that are shown; the devices keep their own in their states."""
        return {**super().parts(), "strategy": self}

    def state(self) -> dict[str, Any]:
        """The adapters that are shown, by device, and the last metrics."""
        shown_now = {str(device): flat for device, flat in self.own.items()}
        return {"metrics": json.dumps(self.metrics), **shown_now}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.metrics = json.loads(state["metrics"])
        self.own = {int(name): flat for name, flat in state.items() if name != "metrics"}
