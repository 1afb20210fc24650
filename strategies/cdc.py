"""CDC (arXiv 2312.16279): tokens of uncertain samples come up, what the cloud learned from them goes down.

A round is one TRAIN message per device. Down goes the UPDATE frame from the version that the device has to
the newest (nothing when it has it), up comes a TOKEN_BATCH frame, or one of pictures that become tokens here
(`received`). The cloud learns from all batches in the order of the devices (`cloud.distill`), and the
lineage makes the next version of the adapter (`strategies.lineage`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from logging import WARNING
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log
from torch import nn

from cdc_flower.checkpoint import Saved
from cdc_flower.cloud.distill import Cloud
from cdc_flower.cloud.gate import Gate
from cdc_flower.cloud.guard import Guard
from cdc_flower.cloud.losses import needs_teacher
from cdc_flower.cloud.passes import longest
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.cloud.source import replay_pool, validation_pool
from cdc_flower.cloud.source_lessons import source_lessons
from cdc_flower.config import Config
from cdc_flower.data.source import longest_question
from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Mirror
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.fleet.time.clock import staleness_weight
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.models.teacher import Teacher
from cdc_flower.uplink.sample import LOOSE, Batch, Limits, Sample
from cdc_flower.uplink.scores import GATED, token_score
from cdc_flower.wire import gate, keys
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import payload
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import Taken
from strategies.checks import check_teacher, check_uplink
from strategies.fleet import Fleet
from strategies.lineage import Lineage
from strategies.method import Method, Setup, Traits
from strategies.pictures import Examples
from strategies.received import Received, check_sender, form_of, limits_of, received

LITTLE = 0.2  # of the energy of a difference: with less in an update, a line says so
MOST_TOKENS = 0xFFFF  # of a sample: what a grid can hold
Came = tuple[Batch, Sample, CloudSample]
"""A sample that came, in which batch, and as the cloud learns of it."""
PLAIN: Mapping[str, Any] = {
    "uplink.unit": "tokens",
    "uplink.tokens-kept": 0,
    "uplink.budget": 0,
    "cloud.questions": 1,
    "cloud.confidence": 0.0,
    "cloud.confidence-weighted": False,
    "cloud.source-replay": 0,
    "cloud.guard": 0.0,
    "cloud.ema-decay": 0.0,
}
"""Settings without the parts that are `cdc`'s own: what other methods need that share its loop alone."""


class CDC(Method):
    """The strategy, from plain objects, so that it works in any ServerApp.

    ```python
    app = ServerApp()

    @app.main()
    def main(grid, context):
        config = parse(context.run_config)
        strategy = CDC.build(prepare(config))  # prepare: strategies.run
        result = strategy.start(grid, strategy.initial_arrays(), num_rounds=config.run.rounds)
        newest = result.arrays["p"].numpy()  # (P,) float32: cdc_flower.models.adapters.write(model, newest)
    ```

    A TRAIN message holds, under `keys.CONFIG`, the device work, the round and the newest version, and under
    `keys.ARRAYS` the UPDATE frame, if there is one. A reply holds under `keys.METRICS` the version the device
    has, under `keys.CONFIG` the 8-byte digest of its adapter, under `keys.ARRAYS` its frame. How many samples
    and tokens it says to have sent matters in virtual time alone; what is counted is what the frame holds.

    Args:
        fleet: the devices.
        cloud: what learns; anything with the method `learn` of `cloud.distill.Cloud`, and for checkpoints its
            `state` and `load`.
        mirror: the versions of the adapter.
        shared: names the shapes that a batch must have.
        teacher: reads what devices send by itself, where it differs from the student.
        config: its uplink settings are used.
        model: where `cloud` trains, for evaluation by others.
        limits: the most that a device may send.
        words: the longest question in the ids of a teacher that has its own.
        guard: decides how much of what was learned is shipped; None = all.
    """

    name = "cdc"
    about = "devices send tokens of uncertain samples, the cloud distils its teacher into their adapter"
    traits = Traits(labels=False, device_backprop=False, takes_late=True)
    work = "clients.cdc:work"
    learner: ClassVar[type[Cloud]] = Cloud
    order: Mapping[str, Any] = {}  # what a message says beside work, round and version

    def __init__(
        self,
        fleet: Fleet,
        cloud: Any,
        mirror: Mirror,
        shared: Shared,
        teacher: Teacher,
        config: Config,
        model: nn.Module,
        limits: Limits = LOOSE,
        words: int = 0,
        guard: Guard | None = None,
    ) -> None:
        self.fleet, self.cloud, self.lineage = fleet, cloud, Lineage(mirror)
        self.shared, self.teacher, self.config, self.model = shared, teacher, config, model
        self.limits, self.words, self.guard = limits, words, guard
        self.metrics: dict[str, float] = {}  # of the last round
        self._warned = False
        self.examples = Examples()
        self.gate = Gate()  # empty, and says nothing, where devices do not choose by it

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """Assemble the method from a configuration."""
        config, shared, teacher = setup.config, setup.shared, setup.teacher()
        twin, down = twin_model(shared, config.pair), config.downlink
        layout: Any = adapters.layout(twin)  # its cached properties are properties, which no checker believes
        first = adapters.read(twin)
        budget = update.budget_bytes(down.budget, len(first))
        mirror = Mirror(first, layout, down.codec, budget, down.history)
        own, world = teacher.own, setup.world
        most = limits_of(config, shared, world)
        words = longest_question(own, world) if own else 0
        read = longest(own, words) if own else 0
        pool = replay_pool(config, shared, world, own)
        asked = config.cloud.guard or (pool and config.cloud.source_teacher == "auto")
        held = validation_pool(config, shared, world, own) if asked else []
        source = source_lessons(config, shared, teacher, twin, pool, held, world.worth, read)
        longest_seen = longest(shared, most.question)
        guard = Guard.of(config, shared, twin, held, world.worth, longest_seen)
        if source.worse and config.cloud.questions > 1:
            log(
                WARNING,
                "on held-out source the teacher is worth %.3g, the student as shipped %.3g: it is asked no "
                "further questions about pictures (cloud.questions)",
                *(source.worth[name] for name in ("teacher", "student")),
            )
            config = replace(config, cloud=replace(config.cloud, questions=1))
        cloud = cls.learner(config, shared, teacher, twin, source.lessons, longest_seen, read)
        return cls(setup.fleet(), cloud, mirror, shared, teacher, config, twin, most, words, guard)

    @classmethod
    def check(cls, setup: Setup) -> None:
        """Refuse uplink settings and losses that fit neither the models nor the pictures."""
        check_uplink(setup.config, setup.shared, setup.world)
        check_teacher(setup)

    def adapter_of(self, device: int) -> np.ndarray:
        """The newest adapter (P,) float32, the same for all."""
        return self.lineage.newest()

    def cloud_work(self, samples: int) -> CloudWork:
        """The teacher answers what came, further questions about it and as many about source pictures; the
        twin learns `cloud.steps` batches, and the guard asks it as often as it may have to. Nothing without a
        sample.
        """
        cloud = self.config.cloud
        if not samples:
            return CloudWork()
        towers = 1 if self.teacher.tokens else 2
        pictures = towers * samples if self.config.uplink.unit != "tokens" else 0
        judged = self.guard.most if self.guard else 0
        taught = samples + (cloud.questions - 1) * (samples + min(samples, cloud.source_replay))
        return CloudWork(taught, cloud.steps, cloud.batch, needs_teacher(cloud.losses), pictures, judged)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Every device gets what it missed."""

        def content(device: int) -> RecordDict:
            frame = self.lineage.frame_for(device)
            newest = self.lineage.mirror.newest
            order = {**self.order, keys.WORK: self.work, keys.ROUND: server_round, keys.VERSION: newest}
            if told := self.gate.packed():
                order[keys.GATE] = told
            records = RecordDict({keys.CONFIG: ConfigRecord(order)})
            if frame is not None:
                records[keys.ARRAYS] = payload(frame)
            return records

        return self.fleet.ask(grid, server_round, MessageType.TRAIN, content)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Learn from all samples that came; the arrays are the newest adapter."""
        heard = self.fleet.receive(server_round, replies, self.form(), self._take)
        came = [
            (one.batch, *both)
            for one in heard.values()
            if one
            for both in zip(one.batch.samples, one.samples, strict=True)
        ]
        stale = sum(map(self.lineage.is_stale, heard))
        self.metrics = {"answered": len(heard), "stale": stale, "uploaded": len(came)}
        samples, weights = self._fresh(server_round, came)
        if samples:
            answers = self._learn(server_round, samples, weights)
            if came:
                self.examples.keep([(batch, sample) for batch, sample, _ in came], answers)
                self._compare([sample for _, sample, _ in came], answers)
        self.metrics["version"] = self.lineage.mirror.newest
        return self.initial_arrays(), MetricRecord(dict(self.metrics))

    def form(self) -> Form:
        """Version, digest and a frame, within `uplink.budget`."""
        reads = self.config.run.samples_per_round * (2 + token_score(self.config.uplink.token_score).passes)
        return form_of(self.config, self.fleet.computed(reads), MOST_TOKENS)

    def _take(self, device: int, reply: Reply) -> Taken[Received | None]:
        """Which adapter a device has, and its batch, None where it sent none."""
        self.lineage.heard(device, reply.metrics[keys.VERSION], reply.config[keys.DIGEST])
        found = self._received(device, reply) if reply.frame else None
        samples = found.batch.samples if found else ()
        return Taken(found, len(samples), sum(len(s.positions) for s in samples))

    def _received(self, device: int, reply: Reply) -> Received:
        found = received(
            reply.frame, self.shared, self.teacher, self.config, self.limits, self.fleet.seconds, self.words
        )
        batch = found.batch
        check_sender(batch, device, self.fleet.round_of(device))
        if empty := sum(not len(sample.positions) for sample in found.samples):
            raise FrameError(f"{empty} samples have no token; allowed: one or more")
        version, newest = reply.metrics[keys.VERSION], self.lineage.mirror.newest
        if batch.version > min(version, newest):
            raise FrameError(
                f"the batch says version {batch.version}; allowed: up to {min(version, newest)}, the newest "
                "that this device has"
            )
        return found

    def _fresh(self, round: int, came: list[Came]) -> tuple[list[CloudSample], np.ndarray]:
        """What the cloud learns of in a round besides the past, and how much each of it counts."""
        stale = np.array([max(0, self.lineage.mirror.newest - batch.version) for batch, _, _ in came])
        weights = staleness_weight(stale, self.config.fleet.staleness_power)
        return [sample for _, _, sample in came], weights

    def _learn(self, round: int, samples: list[CloudSample], weights: np.ndarray) -> list[str]:
        """Make the next version of samples; what the teacher says to each."""
        began = time.perf_counter()
        learned = self.cloud.learn(samples, round, weights)
        taught = time.perf_counter()
        share = self.lineage.advance(learned.adapter, self.guard)
        self.fleet.seconds["cloud"] += taught - began
        self.fleet.seconds["codec"] += time.perf_counter() - taught
        mirror = self.lineage.mirror
        if mirror.sent_energy < LITTLE and not self._warned:
            self._warned = True
            log(
                WARNING,
                f"an update carries {mirror.sent_energy:.1%} of the energy of what was learned; 50 % would "
                f"take a downlink.budget of about {mirror.half_energy_bytes:,} bytes",
            )
        self.metrics |= {
            "sent_energy": mirror.sent_energy,
            "taught": learned.taught,
            "dropped": learned.dropped,
            **({"skipped_steps": learned.skipped} if learned.skipped else {}),
            **(self.guard.metrics(share) if self.guard else {}),
            **{f"loss_{k}": float(v) for k, v in learned.losses.items()},
        }
        return learned.teacher_answers

    def _compare(self, samples: list[Sample], answers: list[str]) -> None:
        """Which samples were news: the teacher answered otherwise than the device. A gate learns that."""
        said = [self.shared.text.words(list(s.answer_ids)).strip() for s in samples]
        news = [a != b.strip() for a, b in zip(said, answers, strict=True)]
        self.metrics["agreement"] = 1 - sum(news) / len(news)
        if self.config.uplink.sample_score in GATED:
            self.gate.learn(
                [gate.features(s.question_ids, s.answer_ids, s.uncertainty) for s in samples], news
            )

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, np.ndarray]:
        """From the mirror."""
        return self.lineage.restored(lost)

    def parts(self) -> dict[str, Saved]:
        """Everything that lives from round to round."""
        own = {"strategy": self, "lineage": self.lineage, "mirror": self.lineage.mirror, "cloud": self.cloud}
        return {**super().parts(), **own, "gate": self.gate, **({"guard": self.guard} if self.guard else {})}

    def state(self) -> dict[str, Any]:
        """The last metrics and the examples."""
        return {"metrics": json.dumps(self.metrics), "examples": self.examples.written()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.metrics = json.loads(state["metrics"])
        self.examples = Examples.read(state["examples"])
