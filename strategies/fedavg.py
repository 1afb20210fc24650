"""The FedAvg family: Flower's own FedAvg (arXiv 1602.05629) of the weights that devices trained.

What makes runs comparable is added: seeded cohorts, replies in the order of the devices, exact bytes; and
what brings the family to its best: Flower's server optimisers (`strategies.servers`), the server's own steps
on its labelled data (`cloud.rehearsal`), a running mean of its weights. How weights travel, whole or through
a codec of updates, is a way of `strategies.ways`. The server's own copy is float32.

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
from cdc_flower.cloud.rehearsal import Rehearsal
from cdc_flower.cloud.source import replay_pool
from cdc_flower.config import ConfigError
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.setting import STRICT, setting
from cdc_flower.wire import keys
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import Taken, learned
from strategies.averages import AVERAGES, furthest
from strategies.devices import wanted
from strategies.fleet import Fleet
from strategies.method import Method, Setup, Traits
from strategies.servers import Server
from strategies.ways import Coded, Way, Whole, check_codec

REHEARSED = 0.1  # of the devices' rate, for the server's own steps: at the whole of it they undo the drift


@checked(frozen=True, config=STRICT)
class FedAvgSettings:
    """Training on the device, and the average."""

    epochs: int = setting(3, "over what a device trains on, per round", "device", ge=1, le=1000)
    batch: int = setting(8, "samples a step", "device", ge=1, le=2**16)
    lr: float = setting(3e-3, "learning rate of AdamW, for the adapter", "device", gt=0, le=1e6)
    lr_full: float = setting(
        3e-3, "learning rate of AdamW, for all weights (fedavg_full)", "device", gt=0, le=1e6
    )
    memory: int = setting(448, "past samples a device may train on again", "device", ge=0, le=10**6)
    confidence: float = setting(0.8, "fedavg_pseudo: own answers below it do not teach", "device", ge=0, le=1)
    average: Literal["mean", "median", "trimmed-mean", "krum", "multi-krum", "bulyan"] = setting(
        "mean", "how the weights of devices become one; all but mean bear some hostile devices", "cloud"
    )
    hostile: int = setting(
        1, "devices of a round that the average must bear, where it is no mean", "cloud", ge=0, le=10**7
    )
    server: Literal["mean", "momentum", "adam", "yogi"] = setting(
        "mean", "what follows the average: nothing, or Flower's FedAvgM, FedAdam, FedYogi", "cloud"
    )
    server_rate: float = setting(
        0.0, "server's learning rate; 0 = 1 for mean, 0.3 momentum, 0.01 adam and yogi", "cloud", ge=0, le=1e3
    )
    ema_decay: float = setting(
        0.0,
        "per round, of the averaged weights that are measured; devices go on from the weights themselves",
        "cloud",
        ge=0,
        lt=1,
    )
    replay_steps: int = setting(
        0, "the server's own steps a round on its labelled source samples", "cloud", ge=0, le=10**6
    )
    codec: Literal["fp16", "dyadic"] = setting(
        "fp16", "weights whole, or changes within downlink.budget and uplink.budget; both ways"
    )


@dataclass(frozen=True, eq=False)
class Lesson:
    """What can be used of a reply."""

    flat: np.ndarray  # (P,): the weights after training
    examples: int
    loss: float

    def message(self, start: np.ndarray | int) -> Message:
        """As Flower's strategies take it, with the weights counted from `start`."""
        records = {
            keys.ARRAYS: ArrayRecord({keys.PAYLOAD: Array(self.flat.astype(np.float32) - start)}),
            keys.METRICS: MetricRecord({keys.EXAMPLES: self.examples, "loss": self.loss}),
        }
        return Message(RecordDict(records), dst_node_id=0, message_type=MessageType.TRAIN)


class FedAvgLora(Method, FedAvg):
    """Flower's FedAvg of the adapter, from true labels, with devices by partition.

    A TRAIN message holds what the way of `fedavg.codec` sends under `keys.ARRAYS` and, under `keys.CONFIG`,
    beside work and round, the settings of training, `keys.LABELS` ("true" or "own") and `keys.FULL`. A reply
    holds what that way brings back and, under `keys.METRICS`, `keys.EXAMPLES`, "loss" and counts.
    """

    name = "fedavg_lora"
    about = "devices train the adapter on true labels, the server averages"
    traits = Traits(labels=True, device_backprop=True)
    settings: ClassVar = {"fedavg": FedAvgSettings}
    full = False  # all weights of projector and language model, instead of the adapter

    order: dict[str, Any]
    rehearsal: Rehearsal | None = None

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run."""
        return cls().bound(setup)

    def bound(self, setup: Setup) -> Self:
        """The strategy, bound to what a run has."""
        make = full_model if self.full else twin_model
        config, shared = setup.config, setup.shared
        own, model = config.of(FedAvgSettings), make(shared, config.pair)
        self.bind(setup.fleet(adapter=not self.full), model, own, config.run.samples_per_round)
        if own.codec != "fp16":
            layout: Any = adapters.layout(model)
            self._travel(Coded(self._newest, layout, own.codec, config.downlink, config.uplink.budget))
        if own.replay_steps:
            pool = replay_pool(config, shared, setup.world)
            steps = own.replay_steps, own.batch, REHEARSED * self.order["lr"]
            self.rehearsal = Rehearsal(shared, adapters.train_merged(model), pool, *steps, config.run.seed)
        return self

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
        check_codec(setup.config, own.codec)

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
        self._newest = self._mean = adapters.read(model)
        self.server = Server(own.server, own.server_rate)
        self.order = {
            keys.WORK: Whole.work,
            keys.LABELS: "true" if self.traits.labels else "own",
            keys.FULL: self.full,
            "epochs": own.epochs,
            "batch": own.batch,
            "lr": own.lr_full if self.full else own.lr,
            "memory": own.memory,
            "confidence": own.confidence,
        }
        return self._travel(Whole(self._newest))

    def _travel(self, way: Way) -> Self:
        self.way = way
        self.order = {**self.order, keys.WORK: way.work}
        return self

    @property
    def _apart(self) -> bool:
        """Whether the server's weights are others than what it ships."""
        return bool(self.own.ema_decay) or isinstance(self.way, Coded)

    def adapter_of(self, device: int) -> np.ndarray:
        """What is shipped (P,) float32, the same for all: the weights, or their running mean."""
        return self._mean if self.own.ema_decay else self.way.held(self._newest)

    def cloud_work(self, samples: int) -> CloudWork:
        """The server's own steps; averaging is not charged."""
        own, back = self.own, 1.5 if self.full else 1.0  # of all weights: forward, and twice that back
        return (
            CloudWork(0, own.replay_steps, math.ceil(back * own.batch)) if own.replay_steps else CloudWork()
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The weights and the settings of training, to every device of the cohort."""
        if not self._apart:
            self._newest = arrays[keys.PAYLOAD].numpy()
        self.way.begin(self._newest)

        def content(device: int) -> RecordDict:
            said, body = self.way.sent(device)
            order = ConfigRecord({**config, **self.order, **said, keys.ROUND: server_round})
            return RecordDict({**({keys.ARRAYS: body} if body is not None else {}), keys.CONFIG: order})

        return self.fleet.ask(grid, server_round, MessageType.TRAIN, content)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The average of what can be used; fewer answers than its rule needs leave the weights."""
        heard = self.fleet.receive(server_round, replies, self.form(), self._take)
        lessons = [lesson for lesson in heard.values() if lesson is not None and lesson.examples]
        averaged, said = self._average(server_round, lessons)
        if averaged is not None:
            self._advance(server_round, averaged)
        self.metrics = {
            "answered": len(heard),
            "taught_devices": len(lessons),
            **{k: float(v) for k, v in (said or {}).items() if k == "loss"},  # type: ignore[arg-type]
        }
        return self.initial_arrays() if averaged is not None else None, said

    def _average(self, round: int, lessons: list[Lesson]) -> tuple[np.ndarray | None, MetricRecord | None]:
        """What Flower makes of the lessons: the averaged weights (P,) float32, and the mean loss."""
        rule, own = AVERAGES[self.own.average], self.own
        if len(lessons) < rule.needs(own.hostile):
            if lessons:
                log(
                    WARNING,
                    "round %s: the weights stay: %s answers, average '%s' with %s hostile devices needs %s",
                    *(round, len(lessons), own.average, own.hostile, rule.needs(own.hostile)),
                )
            return None, None
        start = self.way.start
        given = [lesson.message(start if rule.of_changes else 0) for lesson in lessons]
        arrays, said = rule.make(own.hostile, len(lessons)).aggregate_train(round, given)
        assert arrays is not None
        found = arrays[keys.PAYLOAD].numpy()
        return (start + found if rule.of_changes else found).astype(np.float32), said

    def _advance(self, round: int, averaged: np.ndarray) -> None:
        """The next weights, from the average (P,) of what devices made of `way.start`."""
        now = self.way.target(self._newest)
        if now is not self.way.start:
            averaged = now + (averaged - self.way.start)
        stepped = self.server.step(round, now, averaged)
        self._newest = self.rehearsal.after(round, stepped) if self.rehearsal else stepped
        self.way.end(self._newest)
        if self.own.ema_decay:
            part = np.float32(1 - self.own.ema_decay)
            self._mean = self._mean + part * (self.way.held(self._newest) - self._mean)

    def furthest(self, examples: int) -> float:
        """How far a device that learned from so many examples can have moved a weight."""
        own = self.own
        return furthest(own.epochs * math.ceil(examples / own.batch), self.order["lr"])

    def form(self) -> Form:
        """How many examples were learned from, the loss, and what the way brings."""
        computed = self.fleet.computed(self.most_examples * (2 + self.own.epochs))
        return self.way.form(Form(learned(self.most_examples, computed)))

    def _take(self, device: int, reply: Reply) -> Taken[Lesson | None]:
        """What a reply teaches; `FrameError` where that is more than training can."""
        examples = reply.metrics[keys.EXAMPLES]
        flat = self.way.read(device, reply, self.furthest(examples))
        return Taken(None if flat is None else Lesson(flat, examples, reply.metrics["loss"]))

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, np.ndarray]:
        """What the way can make again."""
        found = self.way.restored(lost)
        return super().restored(lost) if found is None else found

    def parts(self) -> dict[str, Saved]:
        """Beside what is shipped, which Flower carries."""
        return {**super().parts(), "strategy": self, **self.way.parts()}

    def state(self) -> dict[str, Any]:
        """The last metrics, the moments of the server's optimiser, and its weights where it ships others."""
        moments = {f"server.{name}": moment for name, moment in self.server.state().items()}
        weights = {"newest": self._newest, "mean": self._mean} if self._apart else {}
        return {"metrics": json.dumps(self.metrics), **weights, **moments}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.metrics = json.loads(state["metrics"])
        if self._apart:
            self._newest, self._mean = np.array(state["newest"]), np.array(state["mean"])
        own = {name.removeprefix("server."): v for name, v in state.items() if name.startswith("server.")}
        self.server.load(own)


class FedAvgFull(FedAvgLora):
    """FedAvg of all weights of projector and language model."""

    name = "fedavg_full"
    about = "devices train all weights on true labels, the server averages"
    traits = Traits(labels=True, device_backprop=True, shown=False)
    full = True


class FedAvgPseudo(FedAvgLora):
    """FedAvg of the adapter, from the device's own confident answers."""

    name = "fedavg_pseudo"
    about = "devices train the adapter on their own confident answers, the server averages"
    traits = Traits(labels=False, device_backprop=True, shown=False)
