"""Memory of the processes of a run, before anything is loaded: what they hold, and their widest pass.

A process holds libraries, models, the optimiser's state, versions of the adapter, the past and the data; the
widest pass of its work comes on top. What is freed between two passes stays with the process
(`SLACK`). Sizes follow from shapes; a few constants were measured (`python -m experiments.bench.plan`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from cdc_flower.config import Config
from cdc_flower.models import room
from cdc_flower.models.compressions import MIXED
from cdc_flower.models.placement import CPU, Place
from cdc_flower.models.room import FLOAT, HALF
from cdc_flower.plan.checkpoints import Checkpoint
from cdc_flower.plan.facts import SCENE_BYTES, Data, Lengths
from cdc_flower.plan.live import Work, peak
from cdc_flower.plan.passes import held_out, kept, tower

LIBRARIES = 410e6  # bytes of a process that has imported all of a run and used each library once
MAPPED = 200e6  # bytes of the libraries' files in memory, which processes share
ROW = 900  # bytes of a row of the ledger
TOP = 64  # teacher's logits kept of a position
TRACED = 64  # rows of a pass that is traced
IN_HALF = 0.6  # of a pass in float32: logits and sums of attention stay in it
ADAM = 4  # float32 copies of what is trained: gradient, two moments, running mean
VERSIONS = 6  # float32 copies of an adapter: first, oldest, newest, and while one is coded or saved


@dataclass(frozen=True)
class Holds:
    """Which models the processes of a method hold.

    Attributes:
        distils: the cloud has the teacher and trains a float student.
        trains: devices train a float student.
        full: all its weights, instead of the adapter.
        batch, lessons: samples of a step on a device, and in all of a round.
        coded: what devices trained goes through a codec of updates, within the budgets.
        rehearses: the cloud trains what devices trained on data of its own.
        shares: what devices trained travels at all.
    """

    distils: bool = False
    trains: bool = False
    full: bool = False
    batch: int = 0
    lessons: int = 0
    coded: bool = False
    rehearses: bool = False
    shares: bool = True


PURPOSES = ("libraries", "data", "weights", "optimiser", "tokens", "ledger", "activations")


@dataclass(frozen=True)
class Need:
    """Bytes of a process by purpose.

    Attributes:
        libraries: code and what it sets up.
        data: pictures and tables.
        weights: of all models.
        optimiser: gradients, moments, versions of the adapter, and weights on their way.
        tokens: vision tokens, cached or kept for replay.
        ledger: its rows.
        activations: of the widest pass, and what the allocator keeps.
    """

    libraries: float = 0.0
    data: float = 0.0
    weights: float = 0.0
    optimiser: float = 0.0
    tokens: float = 0.0
    ledger: float = 0.0
    activations: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one method, as far as it is known without loading anything."""

    config: Config
    holds: Holds
    student: Checkpoint
    teacher: Checkpoint
    data: Data
    lengths: Lengths
    asked: int  # devices of a round
    gpu: bool = False
    rough: bool = False  # passes by a formula that is above them, in no time
    _passes: dict[Any, float] = field(default_factory=dict)
    seen: Lengths | None = None  # by a teacher with a tower of its own

    @property
    def compression(self) -> str:
        """Of the student in the cloud's twin, and on devices that have one kind."""
        fixed = self.config.pair.compression
        return MIXED if fixed == "auto" else fixed

    def widest(self, of: Checkpoint, work: Work, half: bool = False) -> float:
        """Bytes of a pass of a model; traced once with `TRACED` rows, each of which takes as much."""
        if self.rough:
            return above(of, work)
        traced = dataclasses.replace(work, rows=TRACED)
        key = of.path, of.adapter, of.rank, of.full, traced
        if key not in self._passes:
            self._passes[key] = peak(of.short, of.layers, traced)
        return self._passes[key] * work.rows / TRACED * (IN_HALF if half else 1)

    def answers(self, of: Checkpoint, work: Work) -> float:
        """Bytes of a pass that answers, cut to the rows that fit at once (`models.room`)."""
        one, eager = room.Pass(work.length + self.lengths.answer), work.attention or of.eager
        fit = room.rows(of.text, one, self.place, eager)
        return self.widest(of, dataclasses.replace(work, rows=min(work.rows, fit)), self.gpu)

    @property
    def place(self) -> Place | None:
        """Where models compute; None = where this process does."""
        return None if self.gpu else CPU


def above(of: Checkpoint, work: Work) -> float:
    """More bytes than a pass has alive: widths of a layer, as many times as no family has them."""
    text = of.config.text_config
    wide, heads, vocab = text.hidden_size, text.num_attention_heads, text.vocab_size
    one = 24 * wide + 8 * text.intermediate_size + 6 * heads * work.length
    kept = of.layers if work.train or work.attention else 1
    cache = 0 if work.train else 4 * wide * of.layers
    return FLOAT * work.rows * (work.length * (kept * one + cache) + 8 * work.predicted * vocab)


@dataclass(frozen=True)
class Memory:
    """What a process needs in RAM and, where models run on a GPU, in its memory."""

    ram: Need
    vram: Need


def process(run: Run, *, device: bool, cloud: bool, judges: bool = True) -> Memory:
    """The memory of a process that does the work of devices, of the cloud, or of both.

    Args:
        run: what is run.
        device: it answers, and trains where the method's devices do.
        cloud: it holds the data, the ledger and what the method's cloud has.
        judges: the held-out accuracy of the student is taken there.
    """
    on_model = {
        "weights": _weights(run, device, cloud),
        "optimiser": _trained(run, device, cloud),
        "activations": kept(run, device, cloud, judges),
    }
    in_ram = {
        "libraries": LIBRARIES,
        "data": _data(run) if cloud else 0,
        "optimiser": _versions(run, device, cloud),
        "tokens": _tokens(run, cloud),
        "ledger": ROW * run.asked * run.config.run.rounds if cloud else 0,
    }
    if run.gpu:
        return Memory(Need(**in_ram), Need(**on_model))
    both = {k: in_ram.get(k, 0) + on_model.get(k, 0) for k in PURPOSES}
    return Memory(Need(**both), Need())


def teacher_alone(run: Run) -> Memory:
    """The process that starts a comparison: it prepares data and takes the teacher's accuracy."""
    lengths = run.seen or run.lengths
    work = Work(held_out(run, run.teacher, lengths), lengths.prompt)
    weights = FLOAT * run.student.parts.tower + _teacher_bytes(run)
    passes = max(run.widest(run.teacher, work, run.gpu), tower(run))
    ram = Need(libraries=LIBRARIES, data=_data(run), tokens=_cached(run))
    if run.gpu:
        return Memory(ram, Need(weights=weights, activations=passes))
    return Memory(dataclasses.replace(ram, weights=weights, activations=passes), Need())


def _teacher_bytes(run: Run) -> float:
    parts = run.teacher.parts
    return (HALF if run.gpu else FLOAT) * parts.language + (FLOAT * parts.tower if run.seen else 0)


def _weights(run: Run, device: bool, cloud: bool) -> float:
    parts = run.student.parts
    adapter, resident = FLOAT * parts.added, device and not run.holds.trains
    total = FLOAT * parts.tower + (adapter if resident else 0)
    floats = (device and run.holds.trains) + cloud
    if floats and run.holds.full:
        total += floats * FLOAT * parts.language
    elif floats:  # float students share what is frozen, also with the first, which others are copied from
        total += (HALF if run.gpu else FLOAT) * parts.language + (floats + 1) * adapter
    if resident and (run.compression != "none" or not floats or run.holds.full):
        total += parts.stored(run.compression)
    return total + (_teacher_bytes(run) if cloud and run.holds.distils else 0)


def _size(run: Run) -> int:
    """Weights that a method trains or sends."""
    parts = run.student.parts
    return parts.language if run.holds.full else parts.adapter


def _trained(run: Run, device: bool, cloud: bool) -> float:
    """Gradients and moments."""
    works = (cloud and (run.holds.distils or run.holds.rehearses)) or (device and run.holds.trains)
    return ADAM * FLOAT * _size(run) if works else 0


def _versions(run: Run, device: bool, cloud: bool) -> float:
    """Adapters, or all weights, that wait, travel or are kept."""
    size = _size(run)
    total = 2 * FLOAT * size if device else 0
    if cloud:
        total += (VERSIONS if run.holds.distils else 2) * FLOAT * size
    if cloud and run.holds.trains:
        total += run.asked * (HALF + FLOAT) * size  # the answers of a round
    return total


def _data(run: Run) -> float:
    config = run.config
    replayed = min(config.data.scenes_train, config.cloud.source_replay)
    has = run.holds.distils or run.holds.rehearses
    again = has and config.data.pack == "scenes"  # the pictures that the cloud replays
    return run.data.memory + (SCENE_BYTES * replayed * 0.6 if again else 0)


def _cached(run: Run) -> float:
    """Tower outputs of the pictures, a file that is read where it lies."""
    width = run.student.family.width(run.student.config)
    return HALF * width * run.lengths.picture * (run.data.train + run.data.test)


def _tokens(run: Run, cloud: bool) -> float:
    total = _cached(run)
    if cloud and run.holds.rehearses:
        whole = FLOAT * run.student.family.width(run.student.config) * run.lengths.picture
        total += run.config.cloud.source_replay * (whole + 8 * run.lengths.prompt)
    if cloud and run.holds.distils:
        config, lengths = run.config.cloud, run.lengths
        width = run.student.family.width(run.student.config)
        top = 3 * min(TOP, run.student.config.text_config.vocab_size) * 12  # of three positions
        kept = FLOAT * width * lengths.picture + 8 * lengths.prompt + top
        total += config.source_replay * kept + min(config.replay_bytes, _received(run, width, top))
    return total


def _received(run: Run, width: int, top: int) -> float:
    """Bytes of all samples that devices send in a run, as the cloud keeps them; about."""
    own, up = run.config.run, run.config.uplink
    tokens = min(up.tokens_kept or run.lengths.picture, run.lengths.picture)
    frame = tokens * width * up.token_bits / 8  # the coder spares about what everything else takes
    samples = min(own.samples_per_round, up.budget / frame if up.budget else own.samples_per_round)
    return own.rounds * run.asked * samples * (FLOAT * width * tokens + top)
