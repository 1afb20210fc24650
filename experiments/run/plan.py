"""What a command will take, before anything is loaded, and whether this machine has it.

A command is refused only for what surely does not fit: the plan less its own uncertainty against the memory
that is available, swap included. A first check takes a formula above every pass; passes are traced where that
does not settle it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc_flower.config import Config, ConfigError, flat, parse
from cdc_flower.models import placement
from cdc_flower.models.compressions import preflight
from cdc_flower.models.folders import PairError, paths
from cdc_flower.models.teacher import unlike
from cdc_flower.plan import facts, memory
from cdc_flower.plan.checkpoints import Checkpoint, open_checkpoint
from cdc_flower.plan.memory import Holds, Memory, Need, Run
from cdc_flower.session import session
from experiments.report.amounts import size
from experiments.run.machine import Machine, cores
from strategies.devices import wanted
from strategies.fedavg import FedAvgLora, FedAvgSettings
from strategies.method import method

UNSURE = 0.15  # share of the plan that a measurement may differ by (docs/log.md)
UNSURE_MORE = 0.3  # of several processes, whose peaks rarely meet, or where a picture's tokens are assumed
RAY = 350e6  # bytes of Ray's own processes

__all__ = ["Engine", "Known", "Machine", "Plan", "check", "cores", "make", "remedy"]


@dataclass(frozen=True)
class Process:
    """A kind of process of a command, and how many of it there are at a time."""

    name: str
    count: int
    memory: Memory


@dataclass(frozen=True)
class Engine:
    """How a command works: `name` is compare, local, fleet or flower; `workers` its processes."""

    name: str
    workers: int


@dataclass(frozen=True)
class Plan:
    """A plan of a command.

    Attributes:
        runs: arm -> what is run.
        device, cloud: arm -> memory of a process that is nothing else.
        processes: of the command, on this machine.
        unsure: share by which a measurement may differ.
    """

    runs: Mapping[str, Run]
    device: Mapping[str, Memory]
    cloud: Mapping[str, Memory]
    processes: Sequence[Process]
    unsure: float

    @property
    def ram(self) -> float:
        """Bytes of all processes together."""
        return memory.MAPPED + sum(p.count * p.memory.ram.total for p in self.processes)

    @property
    def vram(self) -> float:
        """Bytes on the GPU of all processes together."""
        return sum(p.count * p.memory.vram.total for p in self.processes)

    def lacks(self, machine: Machine) -> str:
        """What surely does not fit, in words; "" where all may."""
        sure = 1 - self.unsure
        for what, need, there in (("RAM", self.ram, machine.ram), ("GPU memory", self.vram, machine.vram)):
            if need * sure > there:
                return f"about {size(need)} of {what}, {size(there)} are free"
        return ""


def holds(config: Config) -> Holds:
    """Which models the processes of a run's method hold, from what the method says of itself."""
    found, own = method(config.run.method), config.of(FedAvgSettings)
    if not found.traits.device_backprop:
        return Holds(distils=found.traits.adapts)
    lessons = own.epochs * (config.run.samples_per_round + own.memory)
    full, federated = getattr(found, "full", False), issubclass(found, FedAvgLora)
    coded, shares = federated and own.codec != "fp16", getattr(found, "shares", True)
    rehearses = federated and (own.replay_steps > 0 or getattr(found, "distils", False))
    return Holds(False, True, full, own.batch, lessons, coded, rehearses, shares)


@dataclass(frozen=True)
class Known:
    """What plans of one command share: checkpoints that were opened, passes that were traced."""

    opened: dict[Any, Checkpoint] = field(default_factory=dict)
    passes: dict[Any, float] = field(default_factory=dict)

    def checkpoint(
        self, path: str, role: str, adapter: str = "", rank: int = 0, full: bool = False
    ) -> Checkpoint:
        """A checkpoint, opened once."""
        key = path, role, adapter, rank, full, session().device
        if key not in self.opened:
            self.opened[key] = open_checkpoint(path, role, adapter, rank, full=full)
        return self.opened[key]


def make(
    configs: Mapping[str, Config],
    engine: Engine,
    jobs: int,
    *,
    rough: bool = False,
    gpu: bool | None = None,
    known: Known | None = None,
) -> Plan:
    """The plan of runs of arms.

    Args:
        configs: arm -> its settings.
        engine: where they run.
        jobs: runs in all.
        rough: by a formula above every pass.
        gpu: models run on one; default: as `run.device` says.
        known: by earlier plans of the same models.

    Raises:
        ConfigError: a pair, pack, mix or cost model that cannot be used.
    """
    known = known or Known()
    runs: dict[str, Run] = {}
    for arm, config in configs.items():
        placement.choose("cpu" if gpu is False else config.run.device)
        found, kind = paths(config.pair, config.data.name), holds(config)
        pair = config.pair
        teacher = known.checkpoint(found.teacher, "teacher")
        seen = None
        if unlike(pair, config.data.name).tower:
            seen = facts.lengths(config, teacher.config, found.teacher, "teacher")
        student = known.checkpoint(found.student, "student", pair.adapter, pair.lora_rank, kind.full)
        runs[arm] = Run(
            config,
            kind,
            student,
            teacher,
            facts.data(config),
            facts.lengths(config, student.config, found.student),
            wanted(config.run.devices, config.run.cohort),
            placement.on_gpu(config.run.device) if gpu is None else gpu,
            rough,
            known.passes,
            seen,
        )
    varies = any(of.family.varies for run in runs.values() for of in (run.student, run.teacher))
    device = {arm: memory.process(run, device=True, cloud=False) for arm, run in runs.items()}
    cloud = {arm: memory.process(run, device=False, cloud=True) for arm, run in runs.items()}
    processes = list(_processes(runs, device, cloud, engine, jobs))
    more = varies or sum(p.count for p in processes) > 1
    return Plan(runs, device, cloud, processes, UNSURE_MORE if more else UNSURE)


def _processes(
    runs: Mapping[str, Run],
    device: Mapping[str, Memory],
    cloud: Mapping[str, Memory],
    engine: Engine,
    jobs: int,
) -> Iterable[Process]:
    both = {arm: memory.process(run, device=True, cloud=True) for arm, run in runs.items()}
    first = next(iter(runs))
    if engine.name == "local":
        yield Process("run", 1, both[first])
    elif engine.name in ("fleet", "flower"):
        yield Process("cloud", 1, cloud[first])
        yield Process("device worker", engine.workers, device[first])
        yield Process("Ray", 1, Memory(Need(libraries=RAY), Need()))
    else:
        start = memory.teacher_alone(runs[first])
        busy = min(engine.workers, jobs)
        if not busy:
            yield Process("all in one", 1, _after(list(both.values()), start))
            return
        at_work = list(_workers(both, busy, jobs))
        waits = Memory(Need(libraries=memory.LIBRARIES), Need())  # it has let go of its models
        ram, vram = (sum(p.count * getattr(p.memory, at).total for p in at_work) for at in ("ram", "vram"))
        if start.ram.total > waits.ram.total + ram or start.vram.total > vram:
            yield Process("start", 1, start)
            return
        yield Process("start, once workers run", 1, waits)
        yield from at_work


def _workers(both: Mapping[str, Memory], busy: int, jobs: int) -> Iterable[Process]:
    each = list(both.values()) * -(-jobs // len(both))
    if busy < min(jobs, len(both)):  # a worker keeps the models of the arms that it has run
        yield Process("worker", busy, _after(list(both.values())))
        return
    each = sorted(each[:jobs], key=lambda m: -(m.ram.total + m.vram.total))[:busy]
    for arm, one in both.items():
        count = sum(other is one for other in each)
        if count:
            yield Process(f"worker, {arm}", count, one)


def _after(these: Sequence[Memory], *others: Memory) -> Memory:
    """One process that does all of it, one after another: models stay, the rest is the widest."""

    def joined(needs: Sequence[Need]) -> Need:
        names = [f.name for f in dataclasses.fields(Need)]
        most = {name: max(getattr(need, name) for need in needs) for name in names}
        most["weights"] = sum(need.weights for need in needs)
        return Need(**most)

    every = [*these, *others]
    return Memory(joined([m.ram for m in every]), joined([m.vram for m in every]))


# --- what does not fit --------------------------------------------------------------------------------------

SMALLER: tuple[tuple[str, int], ...] = (
    ("cloud.batch", 8),
    ("cloud.source-replay", 0),
    ("run.samples-per-round", 1),
    ("fedavg.batch", 1),
)
"""Settings that make a plan smaller, and how far each is tried."""


def remedy(
    configs: Mapping[str, Config], engine: Engine, jobs: int, machine: Machine, known: Known | None = None
) -> str:
    """What would make it fit, in words: fewer workers, a setting, or both; "" where nothing here does."""
    known = known or Known()

    def fits(these: Mapping[str, Config], how: Engine) -> bool:
        return not make(these, how, jobs, known=known).lacks(machine)

    fewer, now = engine, ""
    while fewer.workers > 1 and engine.name != "local":
        fewer = Engine(engine.name, fewer.workers // 2)
        now = f"--workers {fewer.workers}"
        if fits(configs, fewer):
            return now
    said = [now] if now else []
    chosen = dict(configs)
    tries: list[tuple[str, list]] = [("pair.compression", ["nf4"])]
    first = flat(next(iter(configs.values())))
    tries += [(key, _halves(first[key], least)) for key, least in SMALLER if key in first]
    for key, values in tries:
        smaller = chosen
        for value in values:
            smaller = {arm: parse({**flat(c), key: value}) for arm, c in configs.items()}
            if fits(smaller, fewer):
                return " ".join([*said, f"--set {key}={value}"])
    for key, values in tries:  # not one alone: one after another, each as small as it is tried
        if not values:
            continue
        chosen = {arm: parse({**flat(c), key: values[-1]}) for arm, c in chosen.items()}
        said.append(f"--set {key}={values[-1]}")
        if fits(chosen, fewer):
            return " ".join(said)
    if len(configs) > 1:
        alone = [arm for arm in configs if fits({arm: chosen[arm]}, fewer)]
        if alone:
            return " ".join([*said, f"and of the arms only {', '.join(alone)}"])
    return ""


def _halves(value: int, least: int) -> list[int]:
    found = []
    while value > least:
        value = max(least, value // 2)
        found.append(value)
    return found


def on_gpu(configs: Mapping[str, Config]) -> bool:
    """Whether any of the arms computes on a GPU of this machine."""
    return any(placement.on_gpu(config.run.device) for config in configs.values())


def check(configs: Mapping[str, Config], engine: Engine, jobs: int, machine: Machine | None = None) -> None:
    """Refuse a compression that this processor cannot multiply, and what surely does not fit into this
    machine; a pair that is not there yet is not judged.

    Raises:
        ConfigError: what is needed, what is free, and the setting that makes it fit.
    """
    for config in configs.values():
        preflight(config.pair.compression)
    machine, known = machine or Machine.here(on_gpu(configs)), Known()
    try:
        if not make(configs, engine, jobs, rough=True, known=known).lacks(machine):
            return
        lacks = make(configs, engine, jobs, known=known).lacks(machine)
    except PairError:
        return  # whoever needs the pair says what is wrong with it, or trains one
    if lacks:
        helps = remedy(configs, engine, jobs, machine, known)
        raise ConfigError(
            f"this needs {lacks} (`cdc-flower plan`); "
            f"allowed: {helps or 'smaller models, a larger machine'}, or --no-plan to try it"
        )
