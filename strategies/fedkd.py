"""FedKD (arXiv 2108.13323): a mentor that stays on each device, a mentee that all share, updates by SVD."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from cdc_flower.checkpoint import Saved
from cdc_flower.config import ConfigError
from cdc_flower.downlink import low_rank
from cdc_flower.models import adapters
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Frame
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import payload
from cdc_flower.wire.reply import Form, Reply
from strategies.fedavg import FedAvgLora, FedAvgSettings
from strategies.method import Setup, Traits


@dataclass(frozen=True, config=STRICT)
class FedKDSettings:
    """Beyond those of FedAvg: the energy of singular values that is sent."""

    tmin: float = setting(0.95, "share of a change's energy that is sent at first", "all", gt=0, le=1)
    tmax: float = setting(0.98, "and at last", "all", gt=0, le=1)
    until: int = setting(14, "round from which on it is the last", "all", ge=1, le=10**6)

    def energy(self, round: int) -> float:
        """Of a round."""
        return self.tmin + (self.tmax - self.tmin) * min(1.0, round / self.until)


class Factors:
    """The way of weights as factors: down what they have become since version 0, up a round's change.

    Attributes:
        start: (P,) float32, what devices make of the frame that goes down.
        now: the round.
        done: the round after which that frame was made.
    """

    work = "clients.fedkd:work"

    def __init__(self, base: NDArray[np.float32], shapes: low_rank.Shapes, own: FedKDSettings) -> None:
        self.base, self.shapes, self.own = base, shapes, own
        self.now = self.done = 0
        self.end(base)

    def begin(self, newest: NDArray[np.float32]) -> None:
        """What was made at the end of the round before goes down."""

    def sent(self, device: int) -> tuple[dict[str, Any], ArrayRecord | None]:
        """The same to all: a device that missed rounds needs no history."""
        return {"energy": self.own.energy(self.now)}, payload(self.frame)

    def form(self, form: Form) -> Form:
        """A frame besides."""
        return Form(form.metrics, array=Frame(low_rank.longest(self.shapes)))

    def read(self, device: int, reply: Reply, most: float) -> NDArray[Any] | None:
        """What was sent, and the change on it."""
        if not reply.frame:
            return None
        change = low_rank.decode(reply.frame, self.shapes)
        if reply.metrics[keys.EXAMPLES] and (far := low_rank.beyond(change, self.shapes, most)):
            raise FrameError(f"{far} tensors changed by more than {most:.3g} a weight, the most of training")
        return self.start + change

    def target(self, newest: NDArray[np.float32]) -> NDArray[np.float32]:
        """The server's own: what a frame leaves out is in the next."""
        return newest

    def end(self, newest: NDArray[np.float32]) -> None:
        """The next frame."""
        self.done = self.now
        self.frame = low_rank.encode(newest - self.base, self.shapes, self.own.energy(self.done))
        self.start = self.base + low_rank.decode(self.frame, self.shapes)

    def held(self, newest: NDArray[np.float32]) -> NDArray[np.float32]:
        """What devices make of the next frame."""
        return self.start

    def parts(self) -> dict[str, Saved]:
        """None: the frame is made again."""
        return {}

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, NDArray[np.float32]] | None:
        """Nothing: mentors are on the devices alone."""
        return None


class FedKD(FedAvgLora):
    """As `fedavg_lora`, where devices learn the shared adapter beside a mentor of their own."""

    name = "fedkd"
    about = "each device's own full student and the shared adapter teach each other; updates by SVD, averaged"
    traits = Traits(labels=True, device_backprop=True, shown=False)
    settings: ClassVar = {"fedavg": FedAvgSettings, "fedkd": FedKDSettings}

    way: Factors

    def bound(self, setup: Setup) -> Self:
        """The strategy, bound to what a run has."""
        super().bound(setup)
        shapes = adapters.layout(self.model).shapes
        self._travel(Factors(self._newest, shapes, setup.config.of(FedKDSettings)))
        self.order["mentor-lr"] = self.own.lr_full
        return self

    @classmethod
    def check(cls, setup: Setup) -> None:
        """Refuse what is only for weights that travel otherwise."""
        super().check(setup)
        for key, value, allowed in (
            ("fedavg.codec", setup.config.of(FedAvgSettings).codec, "fp16"),
            ("run.poison-devices", setup.config.run.poison_devices, ""),
        ):
            if value != allowed:
                raise ConfigError(f"setting '{key}' = {value!r} with '{cls.name}'; allowed: {allowed!r}")

    @property
    def _apart(self) -> bool:
        """The server's weights are others than what it ships."""
        return True

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As in FedAvg."""
        self.way.now = server_round
        return super().configure_train(server_round, arrays, config, grid)

    def form(self) -> Form:
        """As in FedAvg; two models read what one reads there, one of them with gradients of all weights."""
        found = super().form()
        most = self.fleet.computed(self.most_examples * (2 + 3 * self.own.epochs))
        return Form({**found.metrics, **most}, array=found.array)

    def state(self) -> dict[str, Any]:
        """Of FedAvg, and the round of the frame that goes down next."""
        return {**super().state(), "round": self.way.done}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        super().load(state)
        self.way.now = int(state["round"])
        self.way.end(self._newest)
