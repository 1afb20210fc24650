"""The FedAvg family: Flower's own FedAvg (arXiv 1602.05629) over one flat float16 array per message.

Only what makes runs comparable is added: seeded cohorts, replies in the order of the devices, exact bytes.
The server's own copy stays float32; both directions carry float16, so that FedAvg pays half of what its
textbook form would. A reply with a value that is not finite is refused and counted (Flower would average it
into a model of NaN).

`fedavg_lora`: adapter, true labels. `fedavg_pseudo`: adapter, the device's own confident answers.
`fedavg_full`: all weights of projector and language model, true labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import nn

from cdc_flower.checkpoint import Saved
from cdc_flower.config import Config
from cdc_flower.data.world import World
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.wire import keys
from strategies.base import Fleet
from strategies.traits import Traits

TRAITS = {
    "fedavg_lora": Traits(labels=True, device_backprop=True),
    "fedavg_full": Traits(labels=True, device_backprop=True),
    "fedavg_pseudo": Traits(labels=False, device_backprop=True),
}


def half(flat: np.ndarray) -> np.ndarray:
    """float16, as it goes over the wire; what does not fit becomes infinite and is refused there."""
    with np.errstate(over="ignore"):
        return np.asarray(flat).astype(np.float16)


class SeededFedAvg(FedAvg):
    """Flower's FedAvg with devices by partition. Call `bind` after the constructor."""

    fleet: Fleet
    model: nn.Module
    labels: str
    full: bool
    metrics: dict[str, float]

    def bind(self, fleet: Fleet, model: nn.Module, *, labels: str, full: bool) -> Self:
        """Say whom to ask and for what.

        Args:
            fleet: the devices.
            model: its trainable tensors are what is averaged.
            labels: "true" or "own".
            full: all weights instead of the adapter.
        """
        self.fleet, self.model, self.labels, self.full, self.metrics = fleet, model, labels, full, {}
        self._global = adapters.read(model)
        return self

    def initial_arrays(self) -> ArrayRecord:
        """The weights (P,) float32 before the first round."""
        return ArrayRecord({keys.PAYLOAD: Array(self._global)})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        body = ArrayRecord({keys.PAYLOAD: Array(half(arrays[keys.PAYLOAD].numpy()))})
        order = ConfigRecord(
            {
                **config,
                keys.WORK: "fedavg",
                keys.ROUND: server_round,
                keys.LABELS: self.labels,
                keys.FULL: self.full,
            }
        )
        return self.fleet.ask(
            grid,
            server_round,
            MessageType.TRAIN,
            lambda _: RecordDict({keys.ARRAYS: body, keys.CONFIG: order}),
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        answered, taught = 0, []
        for device, reply in self.fleet.answers(replies).items():
            flat, problem = (
                self._read(reply.content) if reply is not None and reply.has_content() else (None, "")
            )
            if self.fleet.enter(device, reply, refused=bool(problem)):
                assert reply is not None
                assert flat is not None
                answered += 1
                if reply.content.metric_records[keys.METRICS][keys.EXAMPLES] > 0:
                    reply.content[keys.ARRAYS] = ArrayRecord({keys.PAYLOAD: Array(flat.astype(np.float32))})
                    taught.append(reply)
            else:
                self.fleet.warn(server_round, device, reply, problem)
        self.fleet.require(server_round, answered)
        new, metrics = super().aggregate_train(server_round, taught)
        kept = ("loss",)
        self.metrics = {
            "answered": answered,
            "taught_devices": len(taught),
            **{k: float(v) for k, v in (metrics or {}).items() if k in kept},
        }
        return new, metrics

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
        if flat.dtype != np.float16 or flat.shape != self._global.shape:
            return None, f"array is {flat.dtype} of shape {flat.shape}, expected float16 {self._global.shape}"
        if not np.isfinite(flat).all():
            return None, "array has values that are not finite"
        return flat, ""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.fleet.ask_counts(grid, server_round)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.fleet.add_counts(server_round, replies)

    def parts(self) -> dict[str, Saved]:
        """What a checkpoint holds of the method, beside the weights, which Flower carries."""
        return {"strategy": self, "fleet": self.fleet}

    def state(self) -> dict[str, Any]:
        """The last metrics: FedAvg keeps nothing else from round to round."""
        return {"metrics": json.dumps(self.metrics)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.metrics = json.loads(state["metrics"])


def build_lora(config: Config, shared: Shared, world: World) -> SeededFedAvg:
    return SeededFedAvg().bind(Fleet.of(config), twin_model(shared, config.pair), labels="true", full=False)


def build_full(config: Config, shared: Shared, world: World) -> SeededFedAvg:
    return SeededFedAvg().bind(Fleet.of(config), full_model(shared, config.pair), labels="true", full=True)


def build_pseudo(config: Config, shared: Shared, world: World) -> SeededFedAvg:
    return SeededFedAvg().bind(Fleet.of(config), twin_model(shared, config.pair), labels="own", full=False)
