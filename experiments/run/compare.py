"""Run methods side by side on one stream of data and count what each costs.

Python entry: `run(...)` gives pandas frames. What is compared are arms: a name and the settings that make the
difference, a method in the plain case. Every (arm, seed) is a job with a run folder of its own under
`out/runs`; all arms of a seed see the same devices, the same samples in the same rounds and the same test
items. What they share (data, vision-tower outputs, the teacher's accuracy) is computed once, before the jobs.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdc_flower import results
from cdc_flower.config import Config, ConfigError, flat, full_key, parse
from cdc_flower.data.look import of_clips
from cdc_flower.fleet import named_files
from cdc_flower.lock import locked, refuse_if_taken
from cdc_flower.run_folder import CHECKPOINTS, NAMED
from cdc_flower.session import session
from cdc_flower.stages import DataConfig
from experiments.report import page, summary
from experiments.report.summary import Comparison
from experiments.report.terminal import Terminal
from experiments.run import pairs, pool
from experiments.run import plan as planning
from experiments.run.arms import with_needs
from experiments.run.pool import Job
from experiments.run.simulate import refuse_something_else
from strategies import method as registry
from strategies.checks import check_named

ENGINE = "strategies.run"
ARM_NAME = r"[A-Za-z0-9][A-Za-z0-9 =+_.,-]*"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a comparison, after its report was written; `comparison` holds the rounds that were done."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self.comparison = comparison


def run(
    settings: Mapping[str, Any] | None = None,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int = 1,
    out: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    resume: bool = False,
    replace: bool = False,
    pretrain: bool = True,
    plan: bool = True,
    engine: str = ENGINE,
    **overrides: Any,
) -> Comparison:
    """Compare methods; writes run folders, summary.json and report.html into `out`.

    Args:
        settings: flat run config; keys that are missing take their defaults.
        methods: what to compare, in the order of the table: names of methods (by default those with the
            trait `shown`), or arms: name -> the settings that make it, `run.method` among them where that
            is not `cdc`.
        seeds: runs per arm; their seeds are `seed`, `seed` + 1, ...
        out: the folder; default results/<name of the data>. The same comparison in it is made again; another
            one, or one that did not come to its end, is replaced with `replace` alone.
        workers: processes; default one per core; 0 = run in this process. Scripts that call this need the
            usual `if __name__ == "__main__":`, because workers import the script.
        progress: show bars on standard error.
        resume: of runs of the same settings, pair and data that are already in `out`, keep those that are
            finished, and go on with the others after their last checkpoint. A run of others that has rounds
            is refused.
        replace: begin anew where another comparison is, or one that was interrupted.
        pretrain: train a pair for a pack that has none (see `experiments.run.pairs`); False = refuse it.
        plan: refuse what surely does not fit into this machine (see `experiments.run.plan`).
        engine: the module that has `run_local`, `prepare` and `teacher_accuracy`.
        **overrides: further settings, `run_rounds=2` for `run.rounds`; they win over `settings`.

    Raises:
        ConfigError: anything that cannot be run, or a folder that another process works in; before the first
            round.
        pool.WorkerError: no worker starts, as where the caller's script has no `__main__` guard.
        Interrupted: Ctrl-C; the rounds that were done are in the report.
    """
    pool.refuse_in_a_worker()
    _check(seeds, workers)
    shared = {full_key(key): value for key, value in {**(settings or {}), **overrides}.items()}
    arms = _arms(shown() if methods is None else methods, shared)
    configs = {name: parse({**shared, **arm}) for name, arm in arms.items()}
    base = next(iter(configs.values()))
    _check_one_stream(configs)
    for config in configs.values():
        check_named(config)
    busy = planning.cores() if workers is None else workers
    folder = Path(out or Path("results") / base.data.name).absolute()
    seeded = [base.run.seed + i for i in range(seeds)]
    jobs = [
        Job(name, seed, flat(parse({**flat(config), "run.seed": seed, "run.out-dir": str(target)})), engine)
        for seed in seeded
        for name, config in configs.items()
        for target in [summary.run_folder(folder, name, seed)]
    ]
    if plan:
        planning.check(configs, planning.Engine("compare", busy), seeds * len(configs))
    refuse_if_taken(folder)
    refuse_something_else(folder, lambda of: (of / summary.INDEX).exists(), "an earlier comparison")
    if not (resume or replace):
        _refuse_what_is_in(folder, {"config": flat(base), "arms": arms, "seeds": seeded})
    if resume:
        _refuse_to_lose(jobs, {})
    started = time.perf_counter()
    index: dict[str, Any] = {
        "config": flat(base),
        "data": base.data.name,
        "methods": list(arms),
        "arms": arms,
        "seeds": seeded,
        "teacher": {},
        "teacher_on_stream": {},
        "traits": {name: traits(config.run.method) for name, config in configs.items()},
        "versions": results.provenance(),
        "status": "interrupted",
        "failed": {},
        "host_seconds": {"preparation": 0.0, "total": 0.0},
    }
    pool.silence()
    with locked(folder):
        for job in jobs:
            refuse_if_taken(Path(job.settings["run.out-dir"]))
        with Terminal(len(jobs), show=progress) as terminal:
            module = importlib.import_module(engine)
            pairs.tell_unlike(configs.values(), terminal.say)
            with terminal.preparing("pair") as tell:
                pairs.ensure(base, terminal.say, tell, pretrain)
            index["pair_note"] = pairs.hardly_trained(base)
            if index["pair_note"]:
                terminal.say(f"note: {index['pair_note']}")
            with terminal.preparing("preparing") as tell:
                said: dict[str, None] = {}  # of all arms, which meet one stream, each line once
                for config in configs.values():
                    setup = module.prepare(config, tell, said.setdefault)
                for line in said:
                    terminal.say(line)
            digests = {"pair_digest": setup.digest, "data_digest": setup.world.pack.digest}
            if resume:
                _refuse_to_lose(jobs, digests)
            before = {job: begun(job, digests) if resume else None for job in jobs}
            kept = [job for job in jobs if before[job] == "completed"]
            todo = [
                dataclasses.replace(job, resume=before[job] is not None) for job in jobs if job not in kept
            ]
            todo.sort(key=lambda job: (job.seed, not index["traits"][job.arm]["adapts"]))  # the shortest last
            terminal.jobs = len(todo)
            with terminal.preparing("teacher") as tell:
                index["teacher"] = dict(module.teacher_accuracy(base, tell))
                index["teacher_on_stream"] = dict(module.teacher_accuracy(base, tell, "stream"))
            index["host_seconds"]["preparation"] = time.perf_counter() - started
            folder.mkdir(parents=True, exist_ok=True)
            results.write_json(folder / summary.INDEX, index)
            for job in kept:
                terminal.say(f"{job.name}: kept")
            for job in todo:
                if job.resume:
                    terminal.say(f"{job.name}: goes on")
                elif resume and _status(Path(job.settings["run.out-dir"])):
                    terminal.say(
                        f"{job.name}: begins anew; the run that was there has other settings, pair or data"
                    )
            _forget(todo)
            if busy:
                del setup
                _let_go()
            interrupted = False
            try:
                terminal.begin()
                failed = pool.run(todo, busy, terminal.listen)
                index["status"] = "failed" if failed else "completed"
                index["failed"] = {job.name: why for job, why in failed.items()}
            except KeyboardInterrupt:
                interrupted = True
            except pool.WorkerError as err:
                index |= {"status": "failed", "failed": {job.name: str(err) for job in todo}}
                _conclude(folder, index, time.perf_counter() - started)
                raise
        comparison = _conclude(folder, index, time.perf_counter() - started)
        if interrupted:
            raise Interrupted(comparison)
        return comparison


def begun(job: Job, digests: Mapping[str, str]) -> str | None:
    """The status of the run of exactly these settings, with the pair and the data of these digests; None
    where there is none.
    """
    found = _there(job)
    return found.status if found and _differs(job, found, digests) is None else None


def _there(job: Job) -> results.RunResult | None:
    """The run in the folder of a job."""
    try:
        return results.read_to_resume(job.settings["run.out-dir"])
    except results.ResultError:
        return None


def _had(found: results.RunResult) -> dict[str, Any]:
    """The settings and digests of a run, and of the files that its settings name."""
    return {**found.info, **found.config, **found.info.get(NAMED, {})}


def _asked(job: Job, digests: Mapping[str, str]) -> dict[str, Any]:
    return {**job.settings, **digests, **named_files.digests(parse(job.settings).fleet)}


def _differs(job: Job, found: results.RunResult, digests: Mapping[str, str]) -> str | None:
    """The first setting, digest or file in which a run is not that of a job; wherever its folder was then."""
    there, asked = _had(found), _asked(job, digests)
    keys = {**found.config, **asked}
    return next((key for key in keys if key != "run.out-dir" and there.get(key) != asked.get(key)), None)


def _refuse_to_lose(jobs: Sequence[Job], digests: Mapping[str, str]) -> None:
    """Refuse to go on where a run that has rounds would begin anew, because it is another one.

    Raises:
        ConfigError: names the first setting that differs, or a file, `pair_digest` or `data_digest`.
    """
    for job in jobs:
        found = _there(job)
        key = found and _differs(job, found, digests)
        if found and key and (done := _rounds(found)):
            was, now = (of.get(key, "not set") for of in (_had(found), _asked(job, digests)))
            raise ConfigError(
                f"--resume: the run in '{found.folder}' ({done} rounds) has '{key}' = {was!r}, not {now!r}, "
                "and would begin anew; allowed: the settings of that run, --replace (begins anew) or another "
                "folder"
            )


def _rounds(found: results.RunResult) -> int:
    """Rounds that a run has, in its tables or, where these are damaged, in checkpoints."""
    written = found.rounds["round"].tolist() if len(found.rounds) else []
    saved = [int(path.stem.partition("-")[2]) for path in (found.folder / CHECKPOINTS).glob("round-*.ckpt")]
    return max([*written, *saved], default=0)


def shown() -> tuple[str, ...]:
    """Names of the methods that are compared when nothing else is asked for."""
    return tuple(name for name, method in registry.methods().items() if method.traits.shown)


def fitting(data: DataConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of all methods that are installed: those for these data, and where these are pictures those that
    want clips.

    Raises:
        ConfigError: a folder that is no pack.
    """
    found = registry.methods()
    wanting = () if of_clips(data) else tuple(name for name, method in found.items() if method.traits.clips)
    return tuple(name for name in found if name not in wanting), wanting


def _arms(
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]], shared: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Name -> the settings by which an arm differs from the others."""
    if isinstance(methods, Mapping):
        if not methods:
            raise ConfigError("no arms; allowed: at least one")
        for name, arm in methods.items():
            if "run.out-dir" in map(full_key, arm):
                raise ConfigError(f"arm {name!r}: sets 'run.out-dir'; allowed: the folder of the comparison")
            if not re.fullmatch(ARM_NAME, name):
                raise ConfigError(
                    f"arm {name!r} names a folder; allowed: letters, digits and any of ' =+-_.,'"
                )
        return with_needs(methods, shared)
    for method in methods:
        registry.method(method)
    if not methods or len(set(methods)) < len(methods):
        raise ConfigError(
            f"methods = {','.join(methods)!r}; allowed: each of {', '.join(registry.names())} at most once"
        )
    return with_needs({method: {"run.method": method} for method in methods}, shared)


def _check_one_stream(configs: Mapping[str, Config]) -> None:
    """All arms must share what is computed once (data, drift, teacher) and the stream that devices meet."""

    def shared(config: Config) -> tuple[Any, ...]:
        pair, run = config.pair, config.run
        models = pair.folder, pair.teacher, pair.student
        stream = run.seed, run.devices, run.cohort, run.samples_per_round
        return config.data, config.drift, models, pair.max_answer_tokens, stream

    (first, one), *others = configs.items()
    for name, config in others:
        if shared(config) != shared(one):
            raise ConfigError(
                f"arms {first!r} and {name!r} differ in data, drift, models or what devices meet; "
                "allowed: any other difference, and one comparison for each of these"
            )


def _check(seeds: int, workers: int | None) -> None:
    if seeds < 1:
        raise ConfigError(f"seeds = {seeds}; allowed: 1 or more")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers = {workers}; allowed: 0 (in this process) or more")


def _refuse_what_is_in(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse a folder with a comparison that did not come to its end, or that is not the one which is asked
    for: hours may be in it.
    """
    try:
        index = json.loads((folder / summary.INDEX).read_text(encoding="utf-8"))
        planned = [summary.run_folder(folder, m, s) for m in index["methods"] for s in index["seeds"]]
    except (OSError, ValueError, KeyError, TypeError):  # none, or none that could be gone on with
        return
    if index.get("status") != "completed":
        ended = sum(_status(path) == "completed" for path in planned)
        what = (
            "a comparison with failed runs" if index.get("status") == "failed" else "an unfinished comparison"
        )
        raise ConfigError(
            f"out = {str(folder)!r} holds {what} ({ended} of {len(planned)} runs ended); "
            "allowed: --resume (goes on with it), --replace (begins anew) or another folder"
        )
    if {name: index.get(name) for name in asked} != json.loads(json.dumps(asked)):
        raise ConfigError(
            f"out = {str(folder)!r} holds a comparison of other settings, methods or seeds "
            f"({len(planned)} runs); allowed: another folder, --replace (begins anew), or --resume where "
            "methods or seeds alone are others"
        )


def _status(folder: Path) -> str | None:
    """Of the run in a folder; None where there is none."""
    try:
        return results.read_to_resume(folder).status
    except results.ResultError:
        return None


def _let_go() -> None:
    """Give back the memory of models and data: workers have their own."""
    from cdc_flower.models.placement import give_back

    session().close()
    gc.collect()
    give_back()


def _forget(todo: Sequence[Job]) -> None:
    """Remove config.json of runs to be made anew: without it a folder is no run."""
    for job in todo:
        if job.resume:
            continue
        (Path(job.settings["run.out-dir"]) / "config.json").unlink(missing_ok=True)


def traits(method: str) -> dict[str, bool]:
    """What a method says of itself: `labels`, `device_backprop`, `adapts`."""
    found = registry.method(method).traits
    return {"labels": found.labels, "device_backprop": found.device_backprop, "adapts": found.adapts}


def _conclude(folder: Path, index: dict[str, Any], wall: float) -> Comparison:
    """Add up host seconds, write comparison.json, summary.json and the report; read all of it back."""
    stages: dict[str, float] = {"preparation": index["host_seconds"]["preparation"]}
    for method in index["methods"]:
        for seed in index["seeds"]:
            path = summary.run_folder(folder, method, seed) / "run.json"
            spent = json.loads(path.read_text())["host_seconds"] if path.exists() else {}
            for stage, seconds in spent.items():
                stages[stage] = stages.get(stage, 0.0) + seconds
    index["host_seconds"] = {k: round(v, 3) for k, v in {**stages, "total": wall}.items()}
    results.write_json(folder / summary.INDEX, index)
    comparison = summary.read(folder)
    summary.write_summary(comparison)
    page.write(comparison)
    return comparison
