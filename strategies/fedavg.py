"""The FedAvg family: Flower's own FedAvg (arXiv 1602.05629) over one flat float16 array per message.

Only what makes runs comparable is added: seeded cohorts, replies in the order of the devices, exact bytes.
The server's own copy stays float32; both directions carry float16, so that FedAvg pays half of what its
textbook form would. A reply with a value that is not finite is refused and counted (Flower would average it
into a model of NaN).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from pydantic.dataclasses import dataclass
from torch import nn

from cdc_flower.checkpoint import Saved
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from strategies.fleet import Fleet
from strategies.method import Method, Setup, Traits


@dataclass(frozen=True, config=STRICT)
class FedAvgSettings:
    """Training on the device."""

    epochs: int = setting(1, "over what a device trains on, per round", "device", ge=1)
    batch: int = setting(8, "samples a step", "device", ge=1)
    lr: float = setting(3e-3, "learning rate of AdamW, for the adapter", "device", gt=0)
    lr_full: float = setting(1e-3, "learning rate of AdamW, for all weights (fedavg_full)", "device", gt=0)
    memory: int = setting(64, "past samples a device may train on again", "device", ge=0)
    confidence: float = setting(0.8, "fedavg_pseudo: own answers below it do not teach", "device", ge=0, le=1)


def half(flat: np.ndarray) -> np.ndarray:
    """float16, as it goes over the wire; what does not fit becomes infinite and is refused there."""
    with np.errstate(over="ignore"):
        return np.asarray(flat).astype(np.float16)


class FedAvgLora(Method, FedAvg):
    """Flower's FedAvg of the adapter, from true labels, with devices by partition.

    A TRAIN message holds the weights (P,) float16 under `keys.ARRAYS` and, under `keys.CONFIG`, beside work
    and round, the settings of training, `keys.LABELS` ("true" or "own") and `keys.FULL`. A reply holds the
    trained weights and, under `keys.METRICS`, `keys.EXAMPLES`, "loss" and the device's counts.
    """

    name = "fedavg_lora"
    about = "devices train the adapter on true labels, the server averages"
    traits = Traits(labels=True, device_backprop=True)
    settings: ClassVar = {"fedavg": FedAvgSettings}
    work = "clients.fedavg:work"
    full = False  # all weights of projector and language model, instead of the adapter

    order: dict[str, Any]

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run."""
        return cls().bound(setup)

    def bound(self, setup: Setup) -> Self:
        """The strategy, bound to what a run has."""
        make = full_model if self.full else twin_model
        config = setup.config
        return self.bind(
            setup.fleet(adapter=not self.full), make(setup.shared, config.pair), config.of(FedAvgSettings)
        )

    def bind(self, fleet: Fleet, model: nn.Module, own: FedAvgSettings) -> Self:
        """Say whom to ask and for what: Flower's constructors take other things.

        Args:
            fleet: the devices.
            model: its trainable tensors are what is averaged.
            own: go to the devices with every message.
        """
        self.fleet, self.model, self.metrics = fleet, model, {}
        self._newest = adapters.read(model)
        self.order = {
            keys.WORK: self.work,
            keys.LABELS: "true" if self.traits.labels else "own",
            keys.FULL: self.full,
            "epochs": own.epochs,
            "batch": own.batch,
            "lr": own.lr_full if self.full else own.lr,
            "memory": own.memory,
            "confidence": own.confidence,
        }
        return self

    def adapter_of(self, device: int) -> np.ndarray:
        """The averaged weights (P,) float32, the same for all."""
        return self._newest

    def cloud_work(self, samples: int) -> CloudWork:
        """None: averaging weights is not charged."""
        return CloudWork()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The weights and the settings of training, to every device of the cohort."""
        self._newest = arrays[keys.PAYLOAD].numpy()
        body = ArrayRecord({keys.PAYLOAD: Array(half(self._newest))})
        order = ConfigRecord({**config, **self.order, keys.ROUND: server_round})
        records = {keys.ARRAYS: body, keys.CONFIG: order}
        return self.fleet.ask(grid, server_round, MessageType.TRAIN, lambda _: RecordDict(records))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's average of what can be used."""
        answered, taught = 0, []
        for device, reply in self.fleet.answers(replies).items():
            flat, problem = (
                self._read(reply.content) if reply is not None and reply.has_content() else (None, "")
            )
            if self.fleet.enter(device, reply, refused=bool(problem)):
                assert reply is not None
                assert flat is not None
                answered += 1
                said: Any = reply.content.metric_records[keys.METRICS]
                if said[keys.EXAMPLES] > 0:
                    reply.content[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(flat.astype(np.float32))})
                    taught.append(reply)
            else:
                self.fleet.warn(server_round, device, reply, problem)
        self.fleet.require(server_round, answered)
        new, averaged = FedAvg.aggregate_train(self, server_round, taught)
        metrics: Any = averaged or {}
        if new is not None:
            self._newest = new[keys.PAYLOAD].numpy()
        kept = ("loss",)
        self.metrics = {
            "answered": answered,
            "taught_devices": len(taught),
            **{k: float(v) for k, v in metrics.items() if k in kept},
        }
        return new, averaged

    def _read(self, content: RecordDict) -> tuple[np.ndarray | None, str]:
        """A reply's array (P,) float16, or what is wrong with the reply."""
        record, metrics = content.array_records.get(keys.ARRAYS), content.metric_records.get(keys.METRICS)
        if (
            record is None
            or list(record) != [keys.PAYLOAD]
            or metrics is None
            or keys.EXAMPLES not in metrics
        ):
            return None, "the answer lacks its array or its number of examples"
        try:
            flat = record[keys.PAYLOAD].numpy()
        except (TypeError, ValueError) as err:
            return None, f"the array cannot be read: {err}"
        if flat.dtype != np.float16 or flat.shape != self._newest.shape:
            return None, f"array is {flat.dtype} of shape {flat.shape}, expected float16 {self._newest.shape}"
        if not np.isfinite(flat).all():
            return None, "array has values that are not finite"
        return flat, ""

    def parts(self) -> dict[str, Saved]:
        """Beside the weights, which Flower carries."""
        return {**super().parts(), "strategy": self}

    def state(self) -> dict[str, Any]:
        """The last metrics: FedAvg keeps nothing else from round to round."""
        return {"metrics": json.dumps(self.metrics)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.metrics = json.loads(state["metrics"])


class FedAvgFull(FedAvgLora):
    """FedAvg of all weights of projector and language model."""

    name = "fedavg_full"
    about = "devices train all weights on true labels, the server averages"
    full = True


class FedAvgPseudo(FedAvgLora):
    """FedAvg of the adapter, from the device's own confident answers."""

    name = "fedavg_pseudo"
    about = "devices train the adapter on their own confident answers, the server averages"
    traits = Traits(labels=False, device_backprop=True)
