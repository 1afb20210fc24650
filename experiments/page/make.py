"""Make the cells that are missing or no longer hold, each by itself, in workers; and say what is left.

A cell's run has a folder of its own below `OUT/runs`, named also by the digest of what it depends on: an
interrupted one goes on after its last checkpoint, and one of another method or pair is never taken for it.

Where nothing but a method's source has changed, the first of an arm's cells on some data is made again. If
it ends with the same bits, the source was written anew and does the same (`experiments.page.same`), and the
arm's other cells on that data are kept. Else they are made again.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cdc_flower import results
from cdc_flower.config import Config, ConfigError, flat, parse
from experiments.page import cells as saved
from experiments.page import digests, same
from experiments.page.cells import METHOD, Depends
from experiments.page.plan import TEACHER, Cell, Plan
from experiments.run import compare, pairs, pool
from experiments.run import settings as giving
from experiments.run.pool import Event, Job

PACKS = "CDC_FLOWER_PACKS"
TOLD = {METHOD: "its source has changed", "pair": "its pair has changed", "data": "its data have changed"}
GUESS = 180.0  # seconds of a cell, where none like it was made


@dataclass(frozen=True)
class Task:
    """A cell as it can be made here.

    Attributes:
        why: "" where its figures are kept, else "missing" or what has changed.
        same: the cells by which the source it was made with and today's do the same; "" where it is today's.
        skipped: why it cannot be made here; "" where it can.
    """

    cell: Cell
    config: Config | None = None
    depends: Depends | None = None
    why: str = "missing"
    same: str = ""
    skipped: str = ""
    seconds: float = GUESS

    @property
    def todo(self) -> bool:
        """Whether it is to be made."""
        return bool(self.why) and not self.skipped

    @property
    def told(self) -> str:
        """Why it is to be made, for people."""
        return TOLD.get(self.why, self.why)

    @property
    def state(self) -> str:
        """What is to be done with it, for people."""
        if self.todo:
            return f"to make: {self.told}, {self.seconds:.0f} s"
        kept = f"kept (same bits as {self.same})" if self.same else "kept"
        return "skipped" if self.skipped else kept


@dataclass
class Made:
    """How it ended: cells by name; `kept` after their witness, `failed` with why."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[Task] = field(default_factory=list)


def base_settings(cell: Cell) -> dict[str, Any]:
    """The settings of a cell's run: preset, pack, pair, its own, seed.

    Raises:
        ConfigError: pack or pair are not here, or settings that cannot be.
    """
    found = giving.preset(cell.data) if cell.data in giving.presets() else {}
    if cell.data != "scenes":
        packs = os.environ.get(PACKS, "")
        if not packs:
            raise ConfigError(f"no pack '{cell.data}': {PACKS} is not set; allowed: the folder of the packs")
        pack = Path(packs).expanduser().absolute() / cell.data
        if not pack.is_dir():
            raise ConfigError(f"no pack '{cell.data}' in {packs}; allowed: a folder of that name")
        found["data.pack"] = str(pack)
    if cell.pair:
        folder = pairs.folder(cell.pair)
        if not (folder / "pair.json").exists():
            raise ConfigError(f"no pair '{cell.pair}'; allowed: `{_pretraining(cell, folder)}`")
        found["pair.folder"] = str(folder)
    return {**found, **cell.settings, "run.seed": cell.seed}


def _pretraining(cell: Cell, folder: Path) -> str:
    """The command that trains a pair: DATA-tN has a teacher of N % of the steps, DATA-N other draws."""
    kind, number = re.fullmatch(r".*?(?:-(t?)(\d+))?", cell.pair).groups()  # type: ignore[union-attr]
    share = f" --teacher-share {int(number) / 100:g}" if kind and int(number) < 100 else ""
    seed = f" --recipe-seed {number}" if number and not kind else ""
    data = cell.data if cell.data == "scenes" else f"${PACKS}/{cell.data}"
    return f"cdc-flower pretrain --data {data}{share}{seed} --out {folder}"


def tasks(
    plan: Plan, chosen: Sequence[Cell], folder: Path, sets: Mapping[str, Any] | None = None
) -> list[Task]:
    """What is to be done for each cell.

    Args:
        plan: the page.
        chosen: its cells.
        folder: of results.
        sets: settings over all others; for tries, whose figures belong in a folder of their own.
    """
    known: dict[tuple[str, str], dict[str, str] | str] = {}
    evidence = same.read(folder)
    found = []
    for cell in chosen:
        was = saved.read(folder, cell)
        try:
            settings = {**base_settings(cell), **(sets or {}), "run.seed": cell.seed}
            config = parse({"run.method": "static", **settings} if cell.arm == TEACHER else settings)
            where = cell.data, cell.pair
            if where not in known:
                try:
                    known[where] = digests.of_pair_and_data(config)
                except ConfigError as err:
                    known[where] = str(err)
            both = known[where]
            if isinstance(both, str):
                raise ConfigError(both)
            own = {} if cell.arm == TEACHER else {METHOD: digests.of_method(config.run.method)}
        except ConfigError as err:
            found.append(Task(cell, skipped=str(err), why="missing" if was is None else ""))
            continue
        depends = Depends(plan.edition, saved.read_settings(config, cell.arm), {**both, **own})
        why = "missing" if was is None else saved.changed(was, depends)
        by = _witness(evidence, cell, was, depends) if why == METHOD else ""
        seconds = float((was or {}).get("seconds", 0.0))
        found.append(Task(cell, config, depends, "" if by else why, by, seconds=seconds))
    return _guessed(found)


def _witness(
    evidence: Sequence[same.Same], cell: Cell, was: Mapping[str, Any] | None, depends: Depends
) -> str:
    then = {} if was is None else was["digests"]
    return same.witness(evidence, cell, then.get(METHOD, ""), depends.digests[METHOD])


def _guessed(found: Sequence[Task]) -> list[Task]:
    """Each with the seconds that it will take: those of the same arm on the same data, or of any cell."""
    known = [task for task in found if task.seconds > 0]

    def like(task: Task) -> float:
        same = [k.seconds for k in known if (k.cell.data, k.cell.arm) == (task.cell.data, task.cell.arm)]
        near = (
            same or [k.seconds for k in known if k.cell.data == task.cell.data] or [k.seconds for k in known]
        )
        return statistics.fmean(near) if near else GUESS

    return [
        replace(task, seconds=task.seconds or (20.0 if task.cell.arm == TEACHER else like(task)))
        for task in found
    ]


def minutes(left: Sequence[Task], workers: int) -> float:
    """About how long so many cells take."""
    return sum(task.seconds for task in left) / 60 / max(workers, 1)


def make(
    todo: Sequence[Task],
    folder: Path,
    out: Path,
    workers: int,
    listen: Callable[[Event], None],
    most_minutes: float | None = None,
    engine: str = "experiments.page.engine",
) -> Made:
    """Make cells, in their order; each one's figures are written as soon as it ends.

    Args:
        todo: those that are to be made.
        folder: of results.
        out: for run folders.
        workers: processes; 0 = in this one.
        listen: is told every event of the pool.
        most_minutes: after which no further cell is started.
        engine: the module whose `run_local` makes a run.

    Raises:
        pool.WorkerError: no worker starts.
        KeyboardInterrupt: as it came; what is finished is kept.
    """
    started = time.monotonic()
    ended = Made()

    def heard(event: Event) -> None:
        if event.kind == "done":
            _keep(by_job[event.job], event.job, folder, ended)
        listen(event)

    def enough() -> bool:
        return most_minutes is not None and time.monotonic() - started >= 60 * most_minutes

    first, others = _witnesses(todo)
    for some in (first, others):
        by_job: dict[Job, Task] = {}
        for task in some:
            if some is others and _kept(task, folder):
                ended.kept.append(task.cell.name)
                continue
            job = _job(task, out, engine)
            if job.resume and _finished(job):
                _keep(task, job, folder, ended)
            else:
                by_job[job] = task
        failed = pool.run(list(by_job), workers, heard, enough)
        ended.failed.update({by_job[job].cell.name: why for job, why in failed.items()})
    done = {*ended.made, *ended.kept, *ended.failed}
    ended.left = [task for task in todo if task.cell.name not in done]
    return ended


def _witnesses(todo: Sequence[Task]) -> tuple[list[Task], list[Task]]:
    """The tasks, without and with those that another of their arm and data may save from being made again."""
    seen: set[tuple[str, str]] = set()
    first, others = [], []
    for task in todo:
        arm = task.cell.data, task.cell.arm
        (others if task.why == METHOD and arm in seen else first).append(task)
        if task.why == METHOD:
            seen.add(arm)
    return first, others


def _kept(task: Task, folder: Path) -> bool:
    """Whether a cell holds by the evidence that there is by now."""
    assert task.depends is not None
    return bool(_witness(same.read(folder), task.cell, saved.read(folder, task.cell), task.depends))


def _job(task: Task, out: Path, engine: str) -> Job:
    assert task.config is not None
    assert task.depends is not None
    cell = task.cell
    target = out / "runs" / cell.path.with_suffix("")
    target = target.with_name(
        f"{target.name}-{task.depends.digest[:8]}-{digests.of_program()[:8]}"
    ).absolute()
    settings = flat(parse({**flat(task.config), "run.out-dir": str(target)}))
    name = f"{cell.pair or cell.data}: {cell.arm}"
    if cell.arm == TEACHER:
        return Job(name, cell.seed, settings, "experiments.page.teacher")
    job = Job(name, cell.seed, settings, engine)
    both = {f"{what}_digest": task.depends.digests[what] for what in ("pair", "data")}
    return replace(job, resume=compare.begun(job, both) is not None)


def _finished(job: Job) -> bool:
    return results.read_to_resume(job.settings["run.out-dir"]).status == "completed"


def _keep(task: Task, job: Job, folder: Path, ended: Made) -> None:
    """Write a finished cell's figures; the one that cannot be read is a failed one."""
    assert task.depends is not None
    path = saved.file_of(folder, task.cell)
    before = saved.read(folder, task.cell) if task.why == METHOD else None
    try:
        figures = saved.figures(task.cell, task.depends, Path(job.settings["run.out-dir"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        results.write_json(path, figures)
        if before is not None:
            same.record(folder, task.cell, before, figures)
        ended.made.append(task.cell.name)
    except (ConfigError, OSError, ValueError) as err:
        ended.failed[task.cell.name] = str(err)
