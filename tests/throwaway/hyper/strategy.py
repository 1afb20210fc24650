"""The cloud: the mean token of a device -> an adapter for that device alone, in one product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from pydantic.dataclasses import dataclass

from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Flat, Number, ReplyError
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import Taken
from strategies.method import Method, Setup, Traits


@dataclass(frozen=True, config=STRICT)
class HyperSettings:
    """Settings of the hypernetwork."""

    scale: float = setting(0.01, "how far an adapter may be from version 0", "cloud", gt=0)


class Hyper(Method):
    """Features up, parameters down."""

    name = "hyper"
    about = "a fixed hypernetwork gives every device an adapter of its own"
    traits = Traits(labels=False, device_backprop=False, personal=True)
    settings: ClassVar = {"hyper": HyperSettings}

    @classmethod
    def build(cls, setup: Setup) -> Self:
        made = cls()
        made.fleet, made.metrics = setup.fleet(), {}
        made.model = twin_model(setup.shared, setup.config.pair)
        made.base, made.own = adapters.read(made.model), {}
        rng = np.random.default_rng(setup.config.run.seed)
        scale = setup.config.of(HyperSettings).scale
        made.weights = scale * rng.normal(size=(len(made.base), setup.shared.width)).astype(np.float32)
        return made

    def adapter_of(self, device: int) -> np.ndarray:
        return self.own.get(device, self.base)

    def cloud_work(self, samples: int) -> CloudWork:
        return CloudWork(taught=samples)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        order = ConfigRecord({keys.WORK: "hyper.device:work", keys.ROUND: server_round})

        def content(device: int) -> RecordDict:
            body = ArrayRecord({keys.PAYLOAD: Array(self.adapter_of(device).astype(np.float16))})
            return RecordDict({keys.CONFIG: order, keys.ARRAYS: body})

        return self.fleet.ask(grid, server_round, MessageType.TRAIN, content)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        heard = self.fleet.receive(server_round, replies, self.form(), self.take)
        for device, seen in heard.items():
            made = self.base + self.weights @ (seen / np.linalg.norm(seen))
            self.own[device] = made.astype(np.float16).astype(np.float32)
        self.metrics = {"personal": len(self.own)}
        return None, None

    def form(self) -> Form:
        uploaded = Number(int, 0, self.fleet.samples)
        metrics = {keys.UPLOADED: uploaded, **self.fleet.computed(self.fleet.samples)}
        return Form(metrics, array=Flat(self.weights.shape[1], "float16"))

    def take(self, device: int, reply: Reply) -> Taken[np.ndarray]:
        seen = reply.array.astype(np.float32)
        if not seen.any():
            raise ReplyError("a mean token of zeros")
        return Taken(seen)

    def parts(self) -> dict[str, Any]:
        return {**super().parts(), "hyper": self}

    def state(self) -> dict[str, Any]:
        return {str(device): flat for device, flat in self.own.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.own = {int(device): flat for device, flat in state.items()}
