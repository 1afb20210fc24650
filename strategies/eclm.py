"""ECLM (arXiv 2311.11083): a cloud adapter in blocks, of which each device gets the mix that fits it.

From the paper: the cloud's parameters are decomposed into modules that can be combined; a device gets the
combination that fits its data and its resources, adapts it with its own labels, and what devices learned is
merged, module by module. Simplified: modules are the blocks of one adapter (layers, embedding, head,
projector), and there is one of each, where the paper trains several to choose from; a device finds its mix
once, by gradients on its data (`clients.eclm`); resources are a share of the adapter's weights that a device
can hold in training, given to devices in turn; blocks travel whole, in float16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as checked

from cdc_flower.checkpoint import Saved
from cdc_flower.downlink import update
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from cdc_flower.wire.blocks import Blocks
from cdc_flower.wire.fields import Frame
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import payload
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import Taken, learned
from strategies.averages import beyond, furthest
from strategies.fedavg import FedAvgSettings
from strategies.method import Method, Setup, Traits


@checked(frozen=True, config=STRICT)
class ECLMSettings:
    """Beyond those of `fedavg`, which devices train with."""

    least: float = setting(
        0.25,
        "of the adapter's weights that the smallest devices can train; others: half way up, and all",
        "device",
        gt=0,
        le=1,
    )


@dataclass(frozen=True, eq=False)
class Mix:
    """What a device sent last.

    Attributes:
        blocks: which.
        values: (S,) float16, their weights.
        examples: that they learned from.
    """

    blocks: Sequence[int]
    values: np.ndarray
    examples: int


class ECLM(Method):
    """Blocks of a shared adapter, in mixes of each device's own.

    Attributes:
        base: (P,) float32, version 0, which every device has.
        flat: (P,) float32, what the cloud merged.
        own: device -> what it sent last.
        shares: of the weights that devices can train, in turn.
        order: to devices, beside the share of each.
        most: examples that a device may learn from in a round; reads: how often a round reads each.
    """

    name = "eclm"
    about = (
        "devices train the blocks of a shared adapter that fit their data and memory, merged by block (ECLM)"
    )
    traits = Traits(labels=True, device_backprop=True, personal=True, shown=False)
    settings: ClassVar = {"fedavg": FedAvgSettings, "eclm": ECLMSettings}

    base: NDArray[np.float32]
    flat: NDArray[np.float32]
    own: dict[int, Mix]
    blocks: Blocks
    shares: list[float]
    order: dict[str, Any]
    most: int
    reads: int

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run."""
        made, config = cls(), setup.config
        training, least = config.of(FedAvgSettings), config.of(ECLMSettings).least
        made.fleet, made.metrics, made.own = setup.fleet(), {}, {}
        made.model = twin_model(setup.shared, config.pair)
        layout: Any = adapters.layout(made.model)
        made.blocks, made.shares = Blocks.read(layout), [least, (1 + least) / 2, 1.0]
        made.base = made.flat = adapters.read(made.model)
        made.most = config.run.samples_per_round + training.memory
        made.reads = 3 + training.epochs
        made.order = {
            keys.WORK: "clients.eclm:work",
            keys.LABELS: keys.TRUE,
            keys.FULL: False,
            **{name: getattr(training, name) for name in ("epochs", "batch", "lr", "memory")},
        }
        return made

    def adapter_of(self, device: int) -> NDArray[np.float32]:
        """Version 0 (P,) with the blocks that the device trained last."""
        return self._with(self.own[device]) if device in self.own else self.base

    def _with(self, mix: Mix) -> NDArray[np.float32]:
        flat = self.base.copy()
        flat[self.blocks.places(mix.blocks)] = mix.values
        return flat

    def initial_arrays(self) -> ArrayRecord:
        """What the cloud merged."""
        return ArrayRecord({keys.PAYLOAD: Array(self.flat)})

    def cloud_work(self, samples: int) -> CloudWork:
        """None: merging is not charged."""
        return CloudWork()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The merged blocks of each device's mix; nothing before it has chosen, it has version 0."""

        def content(device: int) -> RecordDict:
            share = self.shares[device % len(self.shares)]
            order = ConfigRecord({**self.order, keys.ROUND: server_round, "share": share})
            mix = self.own.get(device)
            body = {} if mix is None else {keys.ARRAYS: payload(self.blocks.encode(mix.blocks, self.flat))}
            return RecordDict({**body, keys.CONFIG: order})

        return self.fleet.ask(grid, server_round, MessageType.TRAIN, content)

    def form(self) -> Form:
        """How many examples were learned from, the loss, and the blocks."""
        array = Frame(self.blocks.head + 2 * len(self.base))
        return Form(learned(self.most, self.fleet.computed(self.most * self.reads)), array=array)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge what came: of every weight the mean over those who trained it, by their examples."""
        heard = self.fleet.receive(server_round, replies, self.form(), self._take)
        self.own |= heard
        sums, counts = np.zeros(len(self.flat)), np.zeros(len(self.flat))
        for mix in heard.values():
            at = self.blocks.places(mix.blocks)
            sums[at] += mix.examples * mix.values.astype(float)
            counts[at] += mix.examples
        merged = np.where(counts > 0, sums / np.maximum(counts, 1), self.flat)
        self.flat = merged.astype(np.float32)
        trained = [len(mix.values) / len(self.flat) for mix in heard.values()]
        self.metrics = {"answered": len(heard), **({"share": float(np.mean(trained))} if trained else {})}
        return self.initial_arrays(), MetricRecord(dict(self.metrics))

    def _take(self, device: int, reply: Reply) -> Taken[Mix]:
        """The blocks of a reply; `FrameError` where they are more than its share, or than training can do."""
        blocks, values = self.blocks.decode(reply.frame)
        room = max(self.shares[device % len(self.shares)] * len(self.base), float(self.blocks.sizes.min()))
        if len(values) > room:
            raise FrameError(f"blocks of {len(values)} weights; allowed: up to {int(room)}")
        examples, before = reply.metrics[keys.EXAMPLES], self.own.get(device)
        start = self.base if before is None else self.flat
        most = furthest(self.order["epochs"] * math.ceil(examples / self.order["batch"]), self.order["lr"])
        if far := beyond(values, start[self.blocks.places(blocks)], most):
            raise FrameError(f"{far} weights changed by more than {most:.3g}, the most of training")
        return Taken(Mix(blocks, values, examples))

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, np.ndarray]:
        """What devices hold is what they sent last."""
        held = [self._with(self.own[device]) for device in lost if device in self.own]
        return {update.digest(flat): flat for flat in held}

    def parts(self) -> dict[str, Saved]:
        """What was merged, and the mixes."""
        return {**super().parts(), "strategy": self}

    def state(self) -> dict[str, Any]:
        """The merged adapter, the mixes by device, and the last metrics."""
        mixes = {
            f"mix.{device}": self.blocks.encode(mix.blocks, self._with(mix))
            for device, mix in self.own.items()
        }
        examples = {device: mix.examples for device, mix in self.own.items()}
        return {
            "metrics": json.dumps(self.metrics),
            "flat": self.flat,
            "examples": json.dumps(examples),
            **mixes,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.metrics, self.flat = json.loads(state["metrics"]), np.array(state["flat"])
        self.own = {
            int(device): Mix(*self.blocks.decode(bytes(state[f"mix.{device}"])), many)
            for device, many in json.loads(state["examples"]).items()
        }
