"""What a device-task costs a device, and a round the cloud: seconds of work by roofline, from counts.

A reply says what the student that really ran computed, in counts (`wire.counts`). They are charged in the
shapes of the cost model: the student's own, or those of a model that a small pair stands for. So a kind of
device work needs no cost of its own: whatever it computes shows in its counts. The cloud says nothing: what
it does follows from the samples that arrived and the settings of distillation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdc_flower.config import Config, ConfigError
from cdc_flower.data.features import Grid
from cdc_flower.data.world import World
from cdc_flower.fleet.cost import cost_models, roofline
from cdc_flower.fleet.cost.mixes import fleet, parse_mix
from cdc_flower.fleet.cost.profiles import Devices, Profile
from cdc_flower.fleet.cost.roofline import Shapes
from cdc_flower.models.shared import Shared
from cdc_flower.wire.counts import Counts

TEACH_BATCH = 64  # samples that the teacher answers together
HALF = 0.5  # of the bytes that `roofline` counts for float32: the cloud computes in float16


@dataclass(frozen=True)
class Charges:
    """What devices run and are charged for.

    Attributes:
        devices: n devices.
        compression: n keys of `roofline.COMPRESSIONS`.
        own: shapes of the student that really runs.
        charged: shapes of the cost model.
        text: mean positions of a sample besides its vision tokens.
        samples: questions that a task answers.
    """

    devices: Devices
    compression: tuple[str, ...]
    own: Shapes
    charged: Shapes
    text: int
    samples: int

    def seconds(self, device: np.ndarray, counts: Sequence[Counts]) -> np.ndarray:
        """Seconds of work of m tasks: passes over complete samples, as many as their positions make up.

        Args:
            device: (m,) int64.
            counts: of what each computed.
        """
        one = self.text + self.own.patches  # positions of a complete sample
        positions, back, decoded = (
            np.array([getattr(c, name) for c in counts], np.float64)
            for name in ("positions", "trained", "decoded")
        )
        steps = np.maximum(0.0, decoded - self.samples)  # an answer's first token comes with the prefill
        prefills, trained = np.maximum(0.0, positions - steps) / one, back / one
        total = np.zeros(len(device))
        names = np.array(self.compression)[device]
        for name in sorted(set(names.tolist())):
            rows = np.flatnonzero(names == name)
            on, length = self.devices.rows(device[rows]), self.text + self.charged.patches
            read = roofline.prefill(self.charged, name, length, self.charged.patches)
            step, tower = roofline.decode(self.charged, name, length, 1), roofline.tower(self.charged)
            total[rows] = (
                self.samples * roofline.work_seconds(on, [tower])
                + prefills[rows] * roofline.work_seconds(on, [read])
                + steps[rows] * roofline.work_seconds(on, [step])
                + trained[rows] * roofline.seconds(on, read.flops, read.bytes_moved, "fp32")
            )
        return total


def charges(config: Config, shared: Shared, world: World) -> Charges:
    """The fleet of a run.

    Raises:
        ConfigError: a mix, a profile or a cost model that cannot be used, or a device whose RAM does not hold
            the model.
    """
    settings = config.fleet
    own_config = shared.student_config()
    rank = config.pair.rank
    own = roofline.shapes(own_config, rank)
    model = cost_models.load(settings.cost_model, own_config)
    charged = roofline.shapes({**model, "frames": own_config["frames"]}, rank)
    prefix, questions = _lengths(shared, world)
    longest = prefix + charged.patches + max(questions) + shared.max_answer_tokens
    chosen = compressions(config, charged, longest)
    devices = fleet(settings.mix, config.run.devices, config.run.seed)
    compression = tuple(chosen[name] for name in devices.names)
    text = prefix + round(sum(questions) / len(questions))
    return Charges(devices, compression, own, charged, text, config.run.samples_per_round)


def _lengths(shared: Shared, world: World) -> tuple[int, list[int]]:
    """Ids of a prompt besides vision tokens and question, and of each question."""
    questions = [len(shared.text.question_ids(str(q))) for q in world.train["question"].unique()]
    return len(shared.text.prefix_ids(Grid(*shared.grid))) - shared.n_tokens, questions


def compressions(config: Config, charged: Shapes, longest: int) -> dict[str, str]:
    """Profile of the mix -> the compression its devices run: the setting, or (auto) the least that fits.

    Raises:
        ConfigError: what is to run does not fit the RAM of a profile.
    """
    shares, profiles = parse_mix(config.fleet.mix)
    found = {}
    for name in shares:
        profile, fixed = profiles[name], config.pair.compression
        if fixed == "auto":
            found[name] = roofline.compression_for(profile, charged, longest)
            continue
        needed = roofline.needed_bytes(charged, fixed, longest)
        if not roofline.fits(profile, needed):
            raise ConfigError(
                f"setting 'pair.compression' = '{fixed}': profile '{name}' has {profile.ram / 1e6:,.0f} MB, "
                f"the model needs {needed / 1e6:,.0f} MB; allowed: a smaller compression, 'auto', another mix"
            )
        found[name] = fixed
    return found


@dataclass(frozen=True)
class CloudWork:
    """What a method's cloud computes after a round.

    Attributes:
        taught: samples that the teacher answers.
        steps, batch: of distillation; every sample of a batch goes through the student, there and back.
        hidden: the teacher's hidden states are computed in every step, too.
        pictures: that go through the tower first.
        judged: samples that the student answers, to be judged.
    """

    taught: int = 0
    steps: int = 0
    batch: int = 0
    hidden: bool = False
    pictures: int = 0
    judged: int = 0


@dataclass(frozen=True)
class CloudCharges:
    """FLOPs and seconds of the cloud's work.

    An upper bound: every sample is charged as a complete picture with an answer of full length, and
    steps also where the teacher was sure of nothing. What is computed before round 1 is not charged.

    Attributes:
        on: the machine; None where no time is counted.
        student: shapes of the model that devices are charged for, or (where no time is counted) run.
        teacher: FLOPs and weights of the teacher in students, as in the pair that really runs.
        length: positions of a question about a complete picture.
        answer: tokens of an answer, at most.
    """

    on: Profile | None
    student: Shapes
    teacher: float
    length: int
    answer: int

    def seconds(self, work: CloudWork) -> float:
        """Seconds between a round and the next."""
        assert self.on is not None, "a cloud without a machine takes no time"
        passes = self._passes(work)
        return float(sum(n * roofline.seconds(self.on, flops, moved, "fp16") for n, flops, moved in passes))

    def flops(self, work: CloudWork) -> float:
        """Floating-point operations of a round."""
        return float(sum(times * flops for times, flops, _ in self._passes(work)))

    def _passes(self, work: CloudWork) -> list[tuple[int, float, float]]:
        """How often what is computed: FLOPs, and bytes moved."""
        s, k = self.student, self.teacher
        batches, judges = (math.ceil(n / TEACH_BATCH) for n in (work.taught, work.judged))
        weights = HALF * roofline.prefill(s, "none", 0, 0).bytes_moved
        read = roofline.prefill(s, "none", self.length, s.patches).flops
        more = roofline.decode(s, "none", self.length, self.answer - 1).flops
        sample = roofline.prefill(s, "none", self.length + self.answer, s.patches, self.answer).flops
        step = 2 * work.batch * sample, 2 * weights  # there, and back through frozen weights
        if work.hidden:
            step = step[0] + k * work.batch * sample, step[1] + k * weights
        tower = roofline.tower(s)
        shown = math.ceil(work.pictures / TEACH_BATCH)
        return [
            (1, work.pictures * tower.flops, shown * tower.bytes_moved),
            (1, k * work.taught * read, k * batches * weights),
            (1, k * work.taught * more, k * batches * (self.answer - 1) * weights),
            (work.steps, *step),
            (1, work.judged * (read + more), judges * self.answer * weights),
        ]


def cloud_profile(config: Config) -> Profile | None:
    """The cloud's machine; None where the cloud takes no time.

    Raises:
        ConfigError: a profile that is unknown.
    """
    name = config.fleet.cloud_profile
    _, known = parse_mix(config.fleet.mix)
    if name and name not in known:
        raise ConfigError(
            f"setting 'fleet.cloud-profile' = '{name}'; allowed: '' (the cloud takes no time), "
            + ", ".join(known)
        )
    return known[name] if name else None


def cloud_charges(
    on: Profile, charged: Charges, teacher: Mapping[str, Any], max_answer_tokens: int
) -> CloudCharges:
    """The cloud of a run.

    Args:
        on: the machine.
        charged: the fleet of the run.
        teacher: its config.
        max_answer_tokens: the longest answer.
    """
    size = _teacher(charged.own, charged.text, teacher)
    student = charged.charged
    return CloudCharges(on, student, size, charged.text + student.patches, max_answer_tokens)


def cloud_counts(config: Config, shared: Shared, world: World, teacher: Mapping[str, Any]) -> CloudCharges:
    """The cloud of a run without a machine: it counts FLOPs alone, of the student and the teacher that run.

    Args:
        config, shared, world: of the run.
        teacher: its config.
    """
    own = roofline.shapes(shared.student_config(), config.pair.rank)
    prefix, questions = _lengths(shared, world)
    text = prefix + round(sum(questions) / len(questions))
    return CloudCharges(None, own, _teacher(own, text, teacher), text + own.patches, shared.max_answer_tokens)


def _teacher(own: Shapes, text: int, teacher: Mapping[str, Any]) -> float:
    """FLOPs of a teacher in those of a student."""
    length = text + own.patches
    theirs = roofline.prefill(roofline.shapes(teacher, 0), "none", length, own.patches)
    return theirs.flops / roofline.prefill(own, "none", length, own.patches).flops
