"""MMPG: a few anchor frames come up, an adapter that was generated for this device alone goes down.

DUET-style parameter generation after CDC-MMPG (arXiv 2406.01601), whose equations were not to be had. In a
round the device answers its questions, and sends all tokens of a few frames of some clips, and the ids of its
questions. The cloud reconstructs features of whole clips (`cloud.adr`), takes what this device sent lately as
a set, and generates its adapter in one forward pass (`cloud.fda`). The next TRAIN message carries it as an
UPDATE frame from version 0, which every device has, so that no message depends on an earlier one. There is no
gradient on a device and no label; the hypernetwork learned beforehand, from users of A (`cloud.episodes`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from cdc_flower.checkpoint import Saved
from cdc_flower.cloud.fda import Adaptor, Seen
from cdc_flower.config import Config, ConfigError
from cdc_flower.data.source import longest_question
from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Mirror
from cdc_flower.draws import generator
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.uplink.sample import Batch, Limits, Sample
from cdc_flower.wire import keys
from cdc_flower.wire.frame import FrameError
from cdc_flower.wire.messages import payload
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import Taken
from strategies.generated import MmpgSettings, Reader, adaptor_of, check_generated, frame_count, reader_of
from strategies.method import Method, Setup, Traits
from strategies.pictures import Examples
from strategies.reasoned import arrives
from strategies.received import check_sender, form_of, tokens

LATELY = 64  # samples of a device that its summary is made of
ALIKE = ("iid", "shared")  # partitions that give all devices the same kinds of data


@dataclass(frozen=True, eq=False)
class Given:
    """The adapter that a device is to have.

    Attributes:
        version: the round in which it was made.
        payload: from version 0 to it, as the codec wrote it.
        flat: what that gives (P,), read-only.
        digest: of `flat`.
    """

    version: int
    payload: bytes
    flat: np.ndarray
    digest: bytes


@dataclass(frozen=True, eq=False)
class Came:
    """What one reply brought: the batch as it came over the wire, and features of its clips."""

    batch: Batch
    seen: Seen


class Mmpg(Method):
    """Anchor frames up, generated parameters down.

    Attributes:
        lately: device -> what it sent, at most `LATELY` samples, the newest last.
        given: device -> the adapter it is to have.
        heard: device -> version and digest of the adapter that it said it has.
        examples: clips of which anchor frames came, for a report.
    """

    name = "mmpg"
    about = "anchor frames come up, parameters generated for this device go down (after CDC-MMPG)"
    traits = Traits(
        labels=False, device_backprop=False, takes_late=True, personal=True, shown=False, clips=True
    )
    settings: ClassVar = {"mmpg": MmpgSettings}
    work: ClassVar[str] = "clients.mmpg:work"

    config: Config
    shared: Shared
    own: MmpgSettings
    adaptor: Adaptor
    reader: Reader
    limits: Limits
    mirror: Mirror
    layout: Any
    base: np.ndarray
    apart: int  # places from a device to the one whose summary it gets, where they are shuffled
    lately: dict[int, Seen]
    given: dict[int, Given]
    heard: dict[int, tuple[int, bytes]]
    examples: Examples

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run; the hypernetwork is trained now where the cache has none."""
        made, config, shared = cls(), setup.config, setup.shared
        made.config, made.shared = config, shared
        made.fleet, made.metrics = setup.fleet(), {}
        made.model = twin_model(shared, config.pair)
        made.layout, made.base = adapters.layout(made.model), adapters.read(made.model)
        made.own = own = cls.chosen(config, shared)
        down = config.downlink
        budget = update.budget_bytes(down.budget, len(made.base))
        made.mirror = Mirror(made.base, made.layout, down.codec, budget, 1)  # it stays at version 0
        made.reader = reader_of(setup, own)
        made.adaptor = adaptor_of(setup, own, made.reader, made.layout, made.base)
        question, run = longest_question(shared, setup.world), config.run
        kept = own.frames * shared.n_tokens // frame_count(shared)
        made.limits = Limits(run.samples_per_round, question, 0, kept)
        made.lately, made.given, made.heard, made.examples = {}, {}, {}, Examples()
        made.apart = 1 + int(generator(run.seed, "shuffled").integers(max(1, run.devices - 1)))
        return made

    @classmethod
    def check(cls, setup: Setup) -> None:
        """Refuse settings with which nothing can be generated."""
        own, config = cls.chosen(setup.config, setup.shared), setup.config
        check_generated(setup, own)
        if own.summary == "shuffled" and (config.run.devices < 2 or config.data.partition in ALIKE):
            raise ConfigError(
                f"setting 'mmpg.summary' = 'shuffled' with {config.run.devices} devices and data.partition = "
                f"'{config.data.partition}': another device's summary would say the same, and the control "
                "nothing; allowed: two devices or more and data.partition = natural or dirichlet"
            )

    @classmethod
    def chosen(cls, config: Config, shared: Shared) -> MmpgSettings:
        """The settings of the section, as this method has them."""
        return config.of(MmpgSettings)

    def adapter_of(self, device: int) -> np.ndarray:
        """What was generated for a device (P,) float32, exactly as it decodes it; version 0 before."""
        return self.given[device].flat if device in self.given else self.base

    def cloud_work(self, samples: int) -> CloudWork:
        """Reconstruction and generation; both together take less than a pass of the student over each
        sample, as which they are charged.
        """
        return CloudWork(judged=samples)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Every device gets its adapter, where it does not say that it has it."""
        own = self.own
        asked = {"anchors": own.anchors, "frames": own.frames, "clips": own.clips}

        def content(device: int) -> RecordDict:
            version, frame = self._next(device)
            order = {**asked, keys.WORK: self.work, keys.ROUND: server_round}
            records = RecordDict({keys.CONFIG: ConfigRecord({**order, keys.VERSION: version})})
            if frame is not None:
                records[keys.ARRAYS] = payload(frame)
            return records

        return self.fleet.ask(grid, server_round, MessageType.TRAIN, content)

    def _next(self, device: int) -> tuple[int, bytes | None]:
        """The version that a device is to have, and the frame that brings it; None where it has it."""
        given = self.given.get(device)
        if given is None:
            return 0, None
        has = self.heard.get(device) == (given.version, given.digest)
        return given.version, None if has else self._frame(given)

    def _frame(self, given: Given) -> bytes:
        return update.jump_frame(given.payload, 0, given.version, self.layout.digest, given.digest)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Remember what came, and generate the adapters of those that sent something."""
        found = self.fleet.receive(server_round, replies, self.form(), self._take)
        began = time.perf_counter()
        for device, came in found.items():
            if came is not None:
                self.lately[device] = _joined(self.lately.get(device), came.seen)
        batches = [came.batch for came in found.values() if came is not None]
        clips = [(batch, s) for batch in batches for s in batch.samples if self.reader.anchored(s)]
        self.examples.keep(clips, [""] * len(clips))
        self.metrics = {"answered": len(found)}
        self._learn(server_round, found)
        made = [device for device, came in found.items() if came is not None and self._seen(device)]
        sent = [self._generate(device, server_round) for device in made]
        self.fleet.seconds["cloud"] += time.perf_counter() - began
        self.metrics["generated"] = len(made)
        if sent:
            self.metrics["sent_energy"] = float(np.mean(sent))
        return None, None

    def _learn(self, round: int, found: Mapping[int, Any]) -> None:
        """What else is learned of what came: nothing."""

    def rebuilt(self, sample: Sample) -> np.ndarray:
        """Tokens (F, n, D) that are made of an example with the device's own tokens; of "none" (K, n, D)."""
        came = arrives(self.config, self.shared)(sample.tokens)
        return self.reader.whole(sample.positions, came, sample.grid[0] // self.reader.frames)

    @torch.no_grad()
    def summaries(self) -> dict[int, np.ndarray]:
        """What the adapters of devices are made of, as points."""
        seen = {device: self._seen(device) for device in self.lately}
        return {device: self.adaptor.summary(of).numpy() for device, of in seen.items() if of is not None}

    def _seen(self, device: int) -> Seen | None:
        """What a device's adapter is made of; with a shuffled summary that of the device some places on."""
        shuffled = self.own.summary == "shuffled"
        return self.lately.get(device if not shuffled else (device + self.apart) % self.config.run.devices)

    def _generate(self, device: int, round: int) -> float:
        """Make the device's adapter; the share of the change that its update carries."""
        seen = self._seen(device)
        assert seen is not None
        step = self.mirror.step(self.adaptor.adapter(seen))
        before = self.given.get(device)
        if before is None or before.payload != step.payload:
            self.given[device] = self._given(round, step.payload)
        return step.sent

    def _given(self, version: int, code: bytes) -> Given:
        flat = update.add(self.base, code, self.layout.sizes)
        flat.flags.writeable = False
        return Given(version, code, flat, update.digest(flat))

    def form(self) -> Form:
        """Version, digest and a frame, within `uplink.budget`."""
        computed = self.fleet.computed(self.config.run.samples_per_round)
        return form_of(self.config, computed, self.limits.kept)

    def _take(self, device: int, reply: Reply) -> Taken[Came | None]:
        """Which adapter a device has, and what it sent, None where that is nothing."""
        came = self._came(device, reply) if reply.frame else None
        self.heard[device] = reply.metrics[keys.VERSION], reply.config[keys.DIGEST]
        samples = came.batch.samples if came else ()
        return Taken(came, len(samples), sum(len(s.positions) for s in samples))

    def _came(self, device: int, reply: Reply) -> Came:
        batch, _ = tokens(reply.frame, self.shared, self.config, self.limits, self.fleet.seconds)
        check_sender(batch, device, self.fleet.round_of(device))
        if not batch.samples:
            raise FrameError("no samples; allowed: at least one, or no frame")
        pictured, most = sum(len(s.positions) > 0 for s in batch.samples), self.own.clips
        if pictured > most:
            raise FrameError(f"anchor frames of {pictured} clips; allowed: {most}")
        rows = self.reader.features(
            [(s.positions, s.tokens) for s in batch.samples], [s.grid for s in batch.samples]
        )
        return Came(batch, Seen(rows, [list(s.question_ids) for s in batch.samples]))

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, np.ndarray]:
        """Those that devices are to have; any other is replaced by the next message."""
        return {
            digest: self.given[device].flat
            for device, digest in lost.items()
            if device in self.given and self.given[device].digest == digest
        }

    def parts(self) -> dict[str, Saved]:
        """What devices sent lately, and what they were given."""
        return {**super().parts(), "strategy": self}

    def state(self) -> dict[str, Any]:
        """Flat arrays, by device."""
        found: dict[str, Any] = {"metrics": json.dumps(self.metrics), "examples": self.examples.written()}
        for device, (version, digest) in self.heard.items():
            found[f"heard.{device}"] = version.to_bytes(4, "little") + digest
        for device, given in self.given.items():
            found[f"given.{device}"] = given.version.to_bytes(4, "little") + given.payload
        for device, seen in self.lately.items():
            found[f"features.{device}"] = seen.features
            found[f"lengths.{device}"] = np.array([len(q) for q in seen.questions], np.int64)
            found[f"ids.{device}"] = np.array([i for q in seen.questions for i in q], np.int64)
        return found

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.metrics, self.examples = json.loads(state["metrics"]), Examples.read(state["examples"])
        self.heard, self.given, self.lately = {}, {}, {}
        for name, value in state.items():
            kind, _, device = name.partition(".")
            if kind == "heard":
                self.heard[int(device)] = int.from_bytes(value[:4], "little"), bytes(value[4:])
            elif kind == "given":
                self.given[int(device)] = self._given(int.from_bytes(value[:4], "little"), bytes(value[4:]))
            elif kind == "features":
                cuts = np.cumsum(state[f"lengths.{device}"])[:-1]
                asked = [part.tolist() for part in np.split(state[f"ids.{device}"], cuts)]
                self.lately[int(device)] = Seen(value, asked)


def _joined(before: Seen | None, now: Seen) -> Seen:
    """The last `LATELY` samples of both."""
    if before is None:
        return now.some(range(len(now.questions))[-LATELY:])
    rows = np.concatenate([before.features, now.features])[-LATELY:]
    return Seen(rows, [*before.questions, *now.questions][-LATELY:])
