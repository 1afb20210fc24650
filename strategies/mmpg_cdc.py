"""MMPG as the start, CDC for what remains: a generated adapter for each device, and one that is distilled.

A device's adapter is version 0, plus what was generated for it alone (`strategies.mmpg`), plus what the cloud
distilled of all devices' uncertain samples (`strategies.cdc`). Both changes are vectors of one space and are
added; each device has a mirror, to which the sum is coded (`strategies.lines`). One TOKEN_BATCH frame carries
both uploads: questions and anchor frames, and tokens of the samples of which the device, as it is adapted
already, is least sure. The cloud's twin learns without what is personal, so that nothing of one device
reaches another but by the teacher's answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from cdc_flower.checkpoint import Saved
from cdc_flower.cloud.fda import Seen
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Mirror
from cdc_flower.fleet.cost.charges import CloudWork
from cdc_flower.fleet.time.clock import staleness_weight
from cdc_flower.uplink.sample import NO_TOKENS
from cdc_flower.wire import keys
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import Taken
from strategies.cdc import CDC
from strategies.lines import Lines
from strategies.method import Setup
from strategies.mmpg import Came, Mmpg
from strategies.received import check_sender, received

NOTHING = np.zeros(0, np.uint16), NO_TOKENS


@dataclass(frozen=True, eq=False)
class Both(Came):
    """What one reply brought, for both methods.

    Attributes:
        learned: what the teacher answers and the twin learns.
        stale: versions by which the device was behind its line.
    """

    learned: list[CloudSample]
    stale: int


class MmpgCdc(Mmpg):
    """The sum of a generated adapter of a device's own and a distilled one for all.

    Attributes:
        loop: what `cdc` has in the cloud: teacher, memory, optimiser.
        lines: which adapter each device has.
        distilled: the shared adapter (P,), as it was learned.
        rounds: in which something was distilled.
        brought: device -> `rounds` of then, when its line was advanced last.
        generated: device -> what was generated for it (G,), as it was generated.
    """

    name = "mmpg_cdc"
    about = "generated parameters of a device's own as the start, and distillation of what stays uncertain"
    needs: ClassVar = {"cloud.guard": 0.0}
    work: ClassVar[str] = "clients.mmpg_cdc:work"

    loop: CDC
    lines: Lines
    distilled: np.ndarray
    rounds: int
    brought: dict[int, int]
    generated: dict[int, np.ndarray]

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """The strategy of a run."""
        made, down = super().build(setup), setup.config.downlink
        made.loop = CDC.build(setup)
        made.loop.fleet = made.fleet
        anchors, kept = made.limits.kept, setup.config.uplink.tokens_kept
        most = max(anchors, kept or made.shared.n_tokens)
        made.limits = replace(made.limits, kept=most)
        budget = update.budget_bytes(down.budget, len(made.base))
        made.lines = Lines(lambda: Mirror(made.base, made.layout, down.codec, budget, down.history))
        made.distilled, made.rounds, made.brought, made.generated = made.base, 0, {}, {}
        return made

    @classmethod
    def check(cls, setup: Setup) -> None:
        """Refuse what either of both refuses."""
        super().check(setup)
        CDC.check(setup)

    def adapter_of(self, device: int) -> np.ndarray:
        """What a device holds after its next message (P,) float32; version 0 before its first answer."""
        return self.lines.of[device].newest() if device in self.lines.of else self.base

    def cloud_work(self, samples: int) -> CloudWork:
        """That of `cdc`, and a generation, charged as a look at each sample."""
        work = self.loop.cloud_work(samples)
        return replace(work, judged=work.judged + samples)

    def _next(self, device: int) -> tuple[int, bytes | None]:
        """The newest version of a device's line, brought to what was distilled since."""
        self._brought(device)
        line = self.lines[device]
        return line.mirror.newest, line.frame_for(device)

    def _learn(self, round: int, found: Mapping[int, Both | None]) -> None:
        """Distil the samples that came with tokens into the shared adapter; who sent nothing gets that."""
        came = [one for one in found.values() if one is not None]
        samples = [sample for one in came for sample in one.learned]
        if samples:
            stale = np.array([one.stale for one in came for _ in one.learned])
            weights = staleness_weight(stale, self.config.fleet.staleness_power)
            learned = self.loop.cloud.learn(samples, round, weights)
            self.distilled, self.rounds = learned.adapter, self.rounds + 1
            self.metrics |= {
                "distilled": len(samples),
                "taught": learned.taught,
                "dropped": learned.dropped,
                **{f"loss_{name}": float(value) for name, value in learned.losses.items()},
            }
        for device, one in found.items():
            if one is None or self._seen(device) is None:
                self._brought(device)

    def _generate(self, device: int, round: int) -> float:
        """Generate for a device."""
        seen = self._seen(device)
        assert seen is not None
        at = self.adaptor.at.numpy()
        self.generated[device] = self.adaptor.adapter(seen)[at]
        return self._bring(device)

    def _brought(self, device: int) -> None:
        """Bring a device to what was distilled since its line was advanced last."""
        if self.brought.get(device, 0) != self.rounds:
            self._bring(device)

    def _bring(self, device: int) -> float:
        """Advance a device's line to the sum; the share of the change that its update carries."""
        target, at = self.distilled.copy(), self.adaptor.at.numpy()
        if device in self.generated:
            target[at] += self.generated[device] - self.base[at]
        self.brought[device] = self.rounds
        sent = self.lines.advance(device, target)
        return 1.0 if sent is None else sent

    def form(self) -> Form:
        """As of `cdc`: a version, a digest and a frame within `uplink.budget`."""
        return self.loop.form()

    def _take(self, device: int, reply: Reply) -> Taken[Came | None]:
        """Which adapter a device has, and what it sent, None where that is nothing."""
        self.lines[device].heard(device, reply.metrics[keys.VERSION], reply.config[keys.DIGEST])
        came = self._came(device, reply) if reply.frame else None
        samples = came.batch.samples if came else ()
        return Taken(came, len(samples), sum(len(s.positions) for s in samples))

    def _came(self, device: int, reply: Reply) -> Both:
        loop, seconds, reader = self.loop, self.fleet.seconds, self.reader
        found = received(
            reply.frame, self.shared, loop.teacher, self.config, self.limits, seconds, loop.words
        )
        batch = found.batch
        check_sender(batch, device, self.fleet.round_of(device))
        tokens = [(s.positions, s.tokens) if reader.anchored(s) else NOTHING for s in batch.samples]
        rows = reader.features(tokens, [s.grid for s in batch.samples])
        seen = Seen(rows, [list(s.question_ids) for s in batch.samples])
        stale = max(0, self.lines[device].mirror.newest - batch.version)
        return Both(batch, seen, [s for s in found.samples if len(s.positions)], stale)

    def restored(self, lost: Mapping[int, bytes]) -> Mapping[bytes, np.ndarray]:
        """From the lines."""
        return self.lines.restored(lost)

    def parts(self) -> dict[str, Saved]:
        """Those of `mmpg`, the lines, and what learns."""
        return {**super().parts(), "lines": self.lines, "cloud": self.loop.cloud}

    def state(self) -> dict[str, Any]:
        """As of `mmpg`, with what was distilled and generated."""
        made = {f"generated.{device}": values for device, values in self.generated.items()}
        brought = {f"brought.{device}": rounds for device, rounds in self.brought.items()}
        return {**super().state(), **made, **brought, "distilled": self.distilled, "rounds": self.rounds}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        super().load(state)
        self.distilled, self.rounds = np.array(state["distilled"], np.float32), int(state["rounds"])
        by_kind: dict[str, dict[int, Any]] = {"generated": {}, "brought": {}}
        for name, value in state.items():
            kind, _, device = name.partition(".")
            if kind in by_kind:
                by_kind[kind][int(device)] = value
        self.generated, self.brought = by_kind["generated"], by_kind["brought"]
