"""CDC (arXiv 2312.16279) as a Flower strategy: uncertain tokens come up, what the cloud learned from them
goes down.

A round is one TRAIN message per device. Down goes the UPDATE frame from the version that device has to the
newest (nothing when it has it), up comes a TOKEN_BATCH frame, or one of pictures that become tokens here
(`received`). The cloud learns from all token batches in the order of the devices (`cloud.distill`), and the
mirror makes the next version of the adapter (`downlink.versions`). Which adapter a device has is known from
its last reply alone, by version and digest, so a device that was away gets what it missed when it is asked
again, and one whose version is of another line (the cloud was restored from an older checkpoint) gets what
fits any device. `upload_all` is the same method with another kind of device work: every sample, every token,
float16, no budget."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from logging import INFO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log
from torch import nn

from cdc_flower.checkpoint import Saved
from cdc_flower.cloud.distill import Cloud, CloudSample
from cdc_flower.config import Config
from cdc_flower.data.domains import SOURCE
from cdc_flower.data.world import World
from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Jumps, Mirror
from cdc_flower.draws import generator
from cdc_flower.fleet.time.clock import staleness_weight
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.models.teacher import load_teacher
from cdc_flower.uplink.token_batch import Sample, TokenBatch
from cdc_flower.wire import keys
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import frame_of, payload
from strategies.base import Fleet
from strategies.received import READ
from strategies.traits import Traits

TRAITS = Traits(labels=False, device_backprop=False)
EXAMPLES = 12  # uploaded samples kept to look at
NO_TOKENS = np.zeros((0, 0), np.float32)  # instead of a kept sample's own: nobody looks at them


@dataclass(frozen=True)
class Example:
    """An uploaded sample, without its tokens, and what the teacher said to it."""

    round: int
    device: int
    sample: Sample
    teacher_answer: str


class CDC(Strategy):
    """The strategy, from plain objects, so that it works in any ServerApp.

    ```python
    app = ServerApp()

    @app.main()
    def main(grid, context):
        config = parse(context.run_config)
        shared = load_shared(config.pair, "scenes")
        strategy = strategies.cdc.build(config, shared, load_world(config, shared))
        result = strategy.start(grid, strategy.initial_arrays(), num_rounds=config.run.rounds)
        adapters.write(model, result.arrays["p"].numpy())
    ```

    Args:
        fleet: the devices.
        cloud: what learns; anything with the methods `learn` and `importance` of `cloud.distill.Cloud`, and
            for checkpoints its `state` and `load`.
        mirror: the adapter line.
        shared: names the shapes that a token batch must have.
        config: its uplink caps are used.
        model: where `cloud` trains, for evaluation by others.
        work: "cdc" or "upload_all", a key of the client's `WORK`.
    """

    def __init__(
        self,
        fleet: Fleet,
        cloud: Any,
        mirror: Mirror,
        shared: Shared,
        config: Config,
        model: nn.Module,
        work: str = "cdc",
    ) -> None:
        self.fleet, self.cloud, self.mirror, self.shared = fleet, cloud, mirror, shared
        self.config, self.model, self.work = config, model, work
        self.known: dict[int, tuple[int, bytes]] = {}  # device -> version and digest of the adapter it has
        self.ordered: dict[int, bytes] = {}  # device -> digest it was brought to, until it answers
        self.refused: set[int] = set()  # devices that did not come to the adapter they were brought
        self.metrics: dict[str, float] = {}  # of the last round
        self.examples: deque[Example] = deque(maxlen=EXAMPLES)

    def initial_arrays(self) -> ArrayRecord:
        """The newest adapter (P,) float32, what `start` takes and `Result.arrays` ends with."""
        return ArrayRecord({keys.PAYLOAD: Array(self.mirror.adapter(self.mirror.newest))})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        def content(device: int) -> RecordDict:
            frame = self.mirror.frame_for(*self.known.get(device, (0, None)), self._jumps(device))
            self.ordered[device] = self.mirror.digest
            order = ConfigRecord(
                {keys.WORK: self.work, keys.ROUND: server_round, keys.VERSION: self.mirror.newest}
            )
            records = RecordDict({keys.CONFIG: order})
            if frame is not None:
                records[keys.ARRAYS] = payload(frame)
            return records

        return self.fleet.ask(grid, server_round, MessageType.TRAIN, content)

    def _jumps(self, device: int) -> Jumps:
        if device in self.refused:
            return "none"
        return "start" if device in self.ordered else "all"

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        batches, answered, stale = self._receive(server_round, replies)
        self.fleet.require(server_round, answered)
        samples = [(batch, sample) for batch in batches for sample in batch.samples]
        self.metrics = {"answered": answered, "stale": stale, "uploaded": len(samples)}
        if samples:
            self._learn(server_round, samples)
        self.metrics["version"] = self.mirror.newest
        return self.initial_arrays(), MetricRecord(dict(self.metrics))

    def _receive(self, round: int, replies: Iterable[Message]) -> tuple[list[TokenBatch], int, int]:
        """Token batches by device, how many devices answered, how many of them lack the newest adapter."""
        batches, answered, stale = [], 0, 0
        for device, reply in self.fleet.answers(replies).items():
            batch, problem = None, ""
            if reply is not None and reply.has_content():
                try:
                    batch = self._decode(device, reply.content)
                except FrameError as err:
                    problem = str(err)
            if self.fleet.enter(device, reply, refused=bool(problem)):
                answered += 1
                stale += self.known[device] != (self.mirror.newest, self.mirror.digest)
            else:
                self.fleet.warn(round, device, reply, problem)
            if batch is not None:
                batches.append(batch)
        return batches, answered, stale

    def _decode(self, device: int, content: RecordDict) -> TokenBatch | None:
        version = content.metric_records.get(keys.METRICS, MetricRecord()).get(keys.VERSION)
        if not isinstance(version, int):
            raise FrameError("the answer does not say which version the device has")
        digest = content.config_records.get(keys.CONFIG, ConfigRecord()).get(keys.DIGEST)
        if not isinstance(digest, bytes) or len(digest) != update.DIGEST_BYTES:
            raise FrameError("the answer does not say, in 8 bytes, which adapter the device has")
        self.known[device] = version, digest
        if self.ordered.pop(device, digest) == digest:
            self.refused.discard(device)
        else:
            self.refused.add(device)
        frame = frame_of(content)
        if not frame:
            return None
        unit = self.config.uplink.unit if self.work == "cdc" else "tokens"
        batch = READ[unit](frame, self.shared, self.config, self.fleet.seconds)
        if (batch.device, batch.round) != (device, self.fleet.round_of(device)):
            raise FrameError(f"the batch says device {batch.device}, round {batch.round}")
        return batch

    def _learn(self, round: int, samples: list[tuple[TokenBatch, Sample]]) -> None:
        began = time.perf_counter()
        stale = [max(0, self.mirror.newest - batch.version) for batch, _ in samples]
        learned = self.cloud.learn(
            [CloudSample(s.tokens, s.positions, list(s.question_ids)) for _, s in samples],
            round,
            staleness_weight(np.array(stale), self.config.fleet.staleness_power),
        )
        taught = time.perf_counter()
        fisher = self.config.downlink.importance == "fisher"
        self.mirror.advance(learned.adapter, self.cloud.importance() if fisher else None)
        self.fleet.seconds["cloud"] += taught - began
        self.fleet.seconds["codec"] += time.perf_counter() - taught
        self.metrics |= {
            "taught": learned.taught,
            "dropped": learned.dropped,
            **{f"loss_{k}": float(v) for k, v in learned.losses.items()},
        }
        self._keep_examples(samples, learned.teacher_answers)

    def _keep_examples(self, samples: list[tuple[TokenBatch, Sample]], answers: list[str]) -> None:
        """The most uncertain samples of each device, devices in turn."""
        devices = sorted({batch.device for batch, _ in samples})
        every = [
            Example(b.round, b.device, replace(s, tokens=NO_TOKENS), a)
            for (b, s), a in zip(samples, answers, strict=True)
        ]
        for device in devices:
            own = [e for e in every if e.device == device]
            own.sort(key=lambda e: -e.sample.uncertainty)
            self.examples.extend(own[: max(1, EXAMPLES // len(devices))])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.fleet.ask_counts(grid, server_round)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.fleet.add_counts(server_round, replies)

    def parts(self) -> dict[str, Saved]:
        """What a checkpoint holds of the method."""
        return {"strategy": self, "fleet": self.fleet, "mirror": self.mirror, "cloud": self.cloud}

    def state(self) -> dict[str, Any]:
        """What this object itself knows: who has which version, the last metrics, the examples."""
        return {
            "devices": np.array(list(self.known), np.int64),
            "versions": np.array([version for version, _ in self.known.values()], np.int64),
            "digests": b"".join(digest for _, digest in self.known.values()),
            "ordered": np.array(list(self.ordered), np.int64),
            "ordered_digests": b"".join(self.ordered.values()),
            "refused": np.array(sorted(self.refused), np.int64),
            "metrics": json.dumps(self.metrics),
            "examples": json.dumps([_written(example) for example in self.examples]),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        versions = zip(state["versions"].tolist(), _digests(state["digests"]), strict=True)
        self.known = dict(zip(state["devices"].tolist(), versions, strict=True))
        ordered = zip(state["ordered"].tolist(), _digests(state["ordered_digests"]), strict=True)
        self.ordered, self.refused = dict(ordered), set(state["refused"].tolist())
        self.metrics = json.loads(state["metrics"])
        self.examples = deque(map(_example, json.loads(state["examples"])), maxlen=EXAMPLES)

    def summary(self) -> None:
        log(INFO, "\t%s: adapter version %s", self.work, self.mirror.newest)


def _digests(row: bytes) -> list[bytes]:
    return [row[i : i + update.DIGEST_BYTES] for i in range(0, len(row), update.DIGEST_BYTES)]


def _written(example: Example) -> dict[str, Any]:
    """An example for JSON, whose floats come back exactly."""
    sample = example.sample
    return {
        "round": example.round,
        "device": example.device,
        "teacher_answer": example.teacher_answer,
        "index": sample.index,
        "positions": sample.positions.tolist(),
        "question_ids": [int(i) for i in sample.question_ids],
        "answer_ids": [int(i) for i in sample.answer_ids],
        "uncertainty": float(sample.uncertainty),
    }


def _example(written: dict[str, Any]) -> Example:
    """The example `_written` was given."""
    own = {name: written.pop(name) for name in ("round", "device", "teacher_answer")}
    positions = np.array(written.pop("positions"), np.uint16)
    return Example(sample=Sample(positions=positions, tokens=NO_TOKENS, **written), **own)


def source_samples(config: Config, shared: Shared, world: World) -> list[CloudSample]:
    """Unlabelled source samples for replay: what the cloud has left from training the student."""
    rows = (world.train["drift_domain"].to_numpy() == SOURCE).nonzero()[0]
    rows = generator(config.run.seed, "source replay").permutation(rows)[: config.cloud.source_replay]
    frame = world.train.iloc[rows]
    every = np.arange(shared.n_tokens)
    return [
        CloudSample(np.asarray(world.train_tokens[i], np.float32), every, shared.text.question_ids(str(q)))
        for i, q in zip(frame["image_row"], frame["question"], strict=True)
    ]


def build(config: Config, shared: Shared, world: World, work: str = "cdc") -> CDC:
    """Assemble the method from a configuration."""
    twin = twin_model(shared, config.pair)
    down = config.downlink
    mirror = Mirror(adapters.read(twin), adapters.layout(twin), down.codec, down.budget, down.history)
    teacher = load_teacher(config.pair, shared, config.data.name)
    cloud = Cloud(config, shared, teacher, twin, source_samples(config, shared, world))
    return CDC(Fleet.of(config), cloud, mirror, shared, config, twin, work)


def build_all(config: Config, shared: Shared, world: World) -> CDC:
    """`upload_all`: the upper arm, same cloud and same downlink."""
    return build(config, shared, world, "upload_all")
