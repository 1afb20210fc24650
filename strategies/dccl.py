"""DCCL (KDD 2021, arXiv 2104.06624): personal patches on devices, a cloud that learns from their models.

From the paper: a device freezes the cloud's model and trains a small vector on a frozen basis with its own
labels (MetaPatch, `clients.dccl`); the cloud learns from its labelled data and from the models of devices
instead of their samples (MoMoDistill, `cdc_flower.cloud.momo`). Simplified: the basis is drawn, not learned;
the patched layers are the outer factors of LoRA and the norms; the cloud's adapter goes down whole, in
float16. There is no official code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as checked

from cdc_flower.checkpoint import Saved
from cdc_flower.cloud.momo import Momo
from cdc_flower.cloud.source import replay_pool
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.patches import Basis
from cdc_flower.models.student import twin_model
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Flat
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import Taken, learned
from strategies.fedavg import FedAvgSettings
from strategies.method import Method, Setup, Traits


@checked(frozen=True, config=STRICT)
class DCCLSettings:
    """Beyond those of `fedavg`, which devices train with."""

    patch: int = setting(256, "numbers of a device's own", "device", ge=1, le=10**6)
    rate: float = setting(0.003, "learning rate of AdamW, for the patch", "device", gt=0, le=1e6)
    steps: int = setting(20, "of the cloud a round, on its labelled source samples", "cloud", ge=0, le=10**6)
    cloud_rate: float = setting(0.0003, "learning rate of AdamW, of the cloud's steps", "cloud", gt=0, le=1e6)
    beta: float = setting(0.3, "weight of devices' models in the cloud's loss", "cloud", ge=0, le=1e6)


class DCCL(Method):
    """An adapter of the cloud's for all, a patch of each device's own.

    Attributes:
        flat: (P,) float32, the cloud's adapter, as devices get it.
        own: device -> z (k,) float16, as it was sent last.
        basis: of patches.
        cloud: what it learns with.
        order: to devices.
        most: examples that a device may learn from in a round; reads: how often a round reads each.
    """

    name = "dccl"
    about = (
        "devices train a small patch of their own on true labels, the cloud learns from their models (DCCL)"
    )
    traits = Traits(labels=True, device_backprop=True, personal=True, shown=False)
    settings: ClassVar = {"fedavg": FedAvgSettings, "dccl": DCCLSettings}

    flat: NDArray[np.float32]
    own: dict[int, NDArray[np.float16]]
    basis: Basis
    cloud: Momo
    order: dict[str, Any]
    most: int
    reads: int

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run."""
        made, config = cls(), setup.config
        training, own = config.of(FedAvgSettings), config.of(DCCLSettings)
        made.fleet, made.metrics, made.own = setup.fleet(), {}, {}
        made.model = twin_model(setup.shared, config.pair)
        layout: Any = adapters.layout(made.model)
        made.basis, made.flat = Basis.of(layout, own.patch), _sent(adapters.read(made.model))
        made.most = config.run.samples_per_round + training.memory
        made.reads = 2 + training.epochs
        made.order = {
            keys.WORK: "clients.dccl:work",
            keys.LABELS: keys.TRUE,
            **{name: getattr(training, name) for name in ("epochs", "batch", "memory")},
            "lr": own.rate,
            "patch": own.patch,
        }
        pool = replay_pool(config, setup.shared, setup.world) if own.steps else []
        steps = own.steps, training.batch, own.cloud_rate
        twin = adapters.train_merged(twin_model(setup.shared, config.pair))
        made.cloud = Momo(setup.shared, twin, pool, *steps, config.run.seed, own.beta)
        return made

    def adapter_of(self, device: int) -> NDArray[np.float32]:
        """The cloud's adapter (P,) with the device's patch."""
        z = self.own.get(device)
        return self.flat if z is None else self.basis.patched(self.flat, z.astype(np.float32))

    def cloud_work(self, samples: int) -> CloudWork:
        """Its own steps; a device's model reads each batch, too, beside the pass there and back of a step."""
        cloud = self.cloud
        if not cloud.steps or not cloud.items:
            return CloudWork()
        return CloudWork(0, cloud.steps, math.ceil(1.5 * cloud.batch))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The cloud's adapter and the settings of training, the same to all."""
        body = ArrayRecord({keys.PAYLOAD: Array(self.flat.astype(np.float16))})
        order = ConfigRecord({**self.order, keys.ROUND: server_round})
        content = RecordDict({keys.ARRAYS: body, keys.CONFIG: order})
        return self.fleet.ask(grid, server_round, MessageType.TRAIN, lambda _: content)

    def form(self) -> Form:
        """How many examples were learned from, the loss, and the patch."""
        return Form(
            learned(self.most, self.fleet.computed(self.most * self.reads)),
            array=Flat(self.basis.size, "float16"),
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Keep the patches that came, and let the cloud learn from the models that they make."""
        heard = self.fleet.receive(server_round, replies, self.form(), _taken)
        self.own |= {device: reply.array for device, reply in heard.items() if reply.array is not None}
        models = [self.adapter_of(device) for device in heard]
        self.flat = _sent(self.cloud.learn(server_round, self.flat, models))
        losses = [reply.metrics["loss"] for reply in heard.values() if reply.metrics[keys.EXAMPLES]]
        self.metrics = {"answered": len(heard), **({"loss": float(np.mean(losses))} if losses else {})}
        return self.initial_arrays(), MetricRecord(dict(self.metrics))

    def initial_arrays(self) -> ArrayRecord:
        """The cloud's adapter, without a patch."""
        return ArrayRecord({keys.PAYLOAD: Array(self.flat)})

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, np.ndarray]:
        """Nothing: devices keep their patches in their states."""
        return {}

    def parts(self) -> dict[str, Saved]:
        """The cloud's adapter and the patches."""
        return {**super().parts(), "strategy": self}

    def state(self) -> dict[str, Any]:
        """The adapter, the patches by device, and the last metrics."""
        patches = {f"patch.{device}": z for device, z in self.own.items()}
        return {"metrics": json.dumps(self.metrics), "flat": self.flat, **patches}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.metrics, self.flat = json.loads(state["metrics"]), np.array(state["flat"])
        names = [name for name in state if name.startswith("patch.")]
        self.own = {int(name.removeprefix("patch.")): state[name] for name in names}


def _sent(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """What devices get of an adapter (P,): float16 goes over the wire."""
    return flat.astype(np.float16).astype(np.float32)


def _taken(device: int, reply: Reply) -> Taken[Reply]:
    """A reply of the right form is good."""
    return Taken(reply)
