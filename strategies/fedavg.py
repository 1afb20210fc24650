"""The FedAvg family: Flower's own FedAvg (arXiv 1602.05629) over one flat float16 array per message.

Only what makes runs comparable is added: seeded cohorts, replies in the order of the devices, exact bytes.
The server's own copy stays float32; both directions carry float16, so that FedAvg pays half of what its
textbook form would.

A reply is a stranger's. Its array must be of the one form that was asked for, finite, and no further from
what the device was sent than its steps of AdamW can go; its number of examples must be one that the settings
allow, its loss finite. What breaks this is refused and counted, where Flower would average it or stop. How
the rest becomes one is a rule of `strategies.averages`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import WARNING
from typing import Any, ClassVar, Literal, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore import log
from pydantic.dataclasses import dataclass as checked
from torch import nn

from cdc_flower.checkpoint import Saved
from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Flat, Number
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import Taken
from strategies.averages import AVERAGES, beyond, furthest
from strategies.devices import wanted
from strategies.fleet import Fleet
from strategies.method import Method, Setup, Traits


@checked(frozen=True, config=STRICT)
class FedAvgSettings:
    """Training on the device, and the average."""

    epochs: int = setting(1, "over what a device trains on, per round", "device", ge=1, le=1000)
    batch: int = setting(8, "samples a step", "device", ge=1, le=2**16)
    lr: float = setting(3e-3, "learning rate of AdamW, for the adapter", "device", gt=0, le=1e6)
    lr_full: float = setting(
        1e-3, "learning rate of AdamW, for all weights (fedavg_full)", "device", gt=0, le=1e6
    )
    memory: int = setting(64, "past samples a device may train on again", "device", ge=0, le=10**6)
    confidence: float = setting(0.8, "fedavg_pseudo: own answers below it do not teach", "device", ge=0, le=1)
    average: Literal["mean", "median", "trimmed-mean", "krum", "multi-krum", "bulyan"] = setting(
        "mean", "how the weights of devices become one; all but mean bear some hostile devices", "cloud"
    )
    hostile: int = setting(
        1, "devices of a round that the average must bear, where it is no mean", "cloud", ge=0, le=10**7
    )


@dataclass(frozen=True, eq=False)
class Lesson:
    """What can be used of a reply."""

    flat: np.ndarray  # (P,) float16: the weights after training
    examples: int
    loss: float

    def message(self, start: np.ndarray | int) -> Message:
        """As Flower's strategies take it, with the weights counted from `start`."""
        records = {
            keys.ARRAYS: ArrayRecord({keys.PAYLOAD: Array(self.flat.astype(np.float32) - start)}),
            keys.METRICS: MetricRecord({keys.EXAMPLES: self.examples, "loss": self.loss}),
        }
        return Message(RecordDict(records), dst_node_id=0, message_type=MessageType.TRAIN)


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
            setup.fleet(adapter=not self.full),
            make(setup.shared, config.pair),
            config.of(FedAvgSettings),
            config.run.samples_per_round,
        )

    @classmethod
    def check(cls, setup: Setup) -> None:
        """Refuse an average that needs more answers than a round can bring."""
        run, own = setup.config.run, setup.config.of(FedAvgSettings)
        asked, need = wanted(run.devices, run.cohort), AVERAGES[own.average].needs(own.hostile)
        if asked < need:
            raise ConfigError(
                f"setting 'fedavg.average' = '{own.average}' with 'fedavg.hostile' = {own.hostile} needs "
                f"{need} answers, a round asks {asked} devices; allowed: more devices, fewer hostile ones, "
                "or 'mean'"
            )

    def bind(self, fleet: Fleet, model: nn.Module, own: FedAvgSettings, samples: int) -> Self:
        """Say whom to ask and for what: Flower's constructors take other things.

        Args:
            fleet: the devices.
            model: its trainable tensors are what is averaged.
            own: of the family.
            samples: that a device is asked in a round.
        """
        self.fleet, self.model, self.metrics = fleet, model, {}
        self.own, self.most_examples = own, samples + own.memory
        self._newest = adapters.read(model)
        self._sent = half(self._newest)
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
        self._sent = half(self._newest)
        body = ArrayRecord({keys.PAYLOAD: Array(self._sent)})
        order = ConfigRecord({**config, **self.order, keys.ROUND: server_round})
        records = {keys.ARRAYS: body, keys.CONFIG: order}
        return self.fleet.ask(grid, server_round, MessageType.TRAIN, lambda _: RecordDict(records))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The average of what can be used; fewer answers than its rule needs leave the weights."""
        heard = self.fleet.receive(server_round, replies, self.form(), self._take)
        lessons = [lesson for lesson in heard.values() if lesson.examples]
        new, averaged = self._average(server_round, lessons)
        said: Any = averaged or {}
        self.metrics = {
            "answered": len(heard),
            "taught_devices": len(lessons),
            **{k: float(v) for k, v in said.items() if k == "loss"},
        }
        return new, averaged

    def _average(self, round: int, lessons: list[Lesson]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What Flower makes of the lessons: the new weights (P,) float32, and the mean loss."""
        rule, own = AVERAGES[self.own.average], self.own
        if len(lessons) < rule.needs(own.hostile):
            if lessons:
                log(
                    WARNING,
                    "round %s: the weights stay: %s answers, average '%s' with %s hostile devices needs %s",
                    *(round, len(lessons), own.average, own.hostile, rule.needs(own.hostile)),
                )
            return None, None
        start = self._sent.astype(np.float32)
        given = [lesson.message(start if rule.of_changes else 0) for lesson in lessons]
        arrays, averaged = rule.make(own.hostile, len(lessons)).aggregate_train(round, given)
        assert arrays is not None
        found = arrays[keys.PAYLOAD].numpy()
        self._newest = (start + found if rule.of_changes else found).astype(np.float32)
        return self.initial_arrays(), averaged

    def furthest(self, examples: int) -> float:
        """How far a device that learned from so many examples can have moved a weight."""
        own = self.own
        return furthest(own.epochs * math.ceil(examples / own.batch), self.order["lr"])

    def form(self) -> Form:
        """The weights, how many examples they learned from, and the loss."""
        examples, loss = Number(int, 0, self.most_examples), Number(float)
        computed = self.fleet.computed(self.most_examples * (2 + self.own.epochs))
        return Form(
            {keys.EXAMPLES: examples, "loss": loss, **computed}, array=Flat(len(self._sent), "float16")
        )

    def _take(self, device: int, reply: Reply) -> Taken[Lesson]:
        """What a reply teaches.

        Raises:
            FrameError: more than training can.
        """
        assert reply.array is not None
        examples = reply.metrics[keys.EXAMPLES]
        most = self.furthest(examples)
        if examples and (far := beyond(reply.array, self._sent, most)):
            raise FrameError(f"{far} weights changed by more than {most:.3g}, the most of its training")
        return Taken(Lesson(reply.array, examples, reply.metrics["loss"]))

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
