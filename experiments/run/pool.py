"""Run jobs (one arm, one seed each) in worker processes and tell how far they are.

Workers stay alive between jobs, so models and data are loaded once per worker. Each computes on one thread:
sums then have one order, and results do not depend on how many workers there are. One pipe per worker instead
of a shared queue: a worker that is killed cannot leave a lock behind. What libraries print goes to
`<run folder>.log`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from cdc_flower import disk
from cdc_flower.config import ConfigError, RunError, parse
from cdc_flower.disk import DiskError
from experiments.run.simulate import rounds_done

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "FLWR_TELEMETRY_ENABLED": "0",
}
LOUD = ("flwr", "transformers", "datasets", "huggingface_hub", "peft", "bitsandbytes", "ray")
SEED = " · seed "  # in a job's name, between arm and seed
READY = "ready"  # the first thing on a worker's pipe


class WorkerError(RunError):
    """Workers end while they start, so that no job can run; the message says why that may be."""


@dataclass(frozen=True)
class Job:
    """One run of an arm: `engine` is the module with `run_local(config, progress, resume=...)`.

    With `resume` the run in its folder goes on.
    """

    arm: str
    seed: int
    settings: dict[str, Any] = field(hash=False)
    engine: str = "strategies.run"
    resume: bool = False

    @property
    def name(self) -> str:
        """For people: arm and seed."""
        return f"{self.arm}{SEED}{self.seed}"


@dataclass(frozen=True)
class Event:
    """What a job reports.

    Attributes:
        kind: start (with the rounds that were done before), progress, done, failed, refused (its settings;
            only from a worker to its parent).
        stage: of progress, what is being done; of failed and refused, the reason.
    """

    job: Job
    kind: str
    stage: str = ""
    done: int = 0
    total: int = 0


Listener = Callable[[Event], None]


def silence() -> None:
    """Set library loggers to warnings, and turn off their progress bars and the colours that Flower writes to
    pipes, too; in this process.
    """
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in logging.getLogger("flwr").handlers:
        vars(handler).update(colored=False)
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)


def run(
    jobs: Sequence[Job], workers: int, listen: Listener, enough: Callable[[], bool] = lambda: False
) -> dict[Job, str]:
    """Run all jobs, at most `workers` at a time.

    Args:
        jobs: in the order in which they are started.
        workers: number of processes; 0 = one after another in this process (for debugging).
        listen: called in this process with every event.
        enough: asked before every job; once it is so no further one is started.

    Returns:
        the jobs that failed -> one line about the failure.

    Raises:
        ConfigError: a job was refused its settings; the others are stopped.
        WorkerError: a worker ended before it took its first job; the others are stopped.
        KeyboardInterrupt: as it came; all workers are stopped.
    """
    if workers == 0:
        return _run_here(jobs, listen, enough)
    return _run_apart(jobs, workers, listen, enough)


def _work(job: Job, tell: Listener) -> None:
    """Run one job in the calling process, which has one thread."""
    engine = importlib.import_module(job.engine)
    config = parse(job.settings)
    done = rounds_done(Path(job.settings["run.out-dir"])) if job.resume else 0
    tell(Event(job, "start", done=done, total=config.run.rounds))
    engine.run_local(
        config, lambda stage, done, total: tell(Event(job, "progress", stage, done, total)), resume=job.resume
    )
    tell(Event(job, "done"))


def _one_line(err: BaseException) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())}"[:500]


def _run_here(jobs: Sequence[Job], listen: Listener, enough: Callable[[], bool]) -> dict[Job, str]:
    import torch

    threads, failed = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    try:
        for job in jobs:
            if enough():
                break
            try:
                _work(job, listen)
            except ConfigError:
                raise
            except Exception as err:
                failed[job] = _one_line(err)
                listen(Event(job, "failed", failed[job]))
    finally:
        torch.set_num_threads(threads)
    return failed


def log_of(folder: Path) -> Path:
    """What the run in a folder printed, beside the folder."""
    return folder.with_name(folder.name + ".log")


def _stop(*_: object) -> None:
    """Leave a job as if by Ctrl-C, so that its folder is brought up to date on the way out."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _serve(pipe: Connection) -> None:
    """The life of a worker: take a job from the pipe, report events on it, until None comes."""
    signal.signal(signal.SIGTERM, _stop)
    silence()
    try:
        pipe.send(READY)
        while (job := pipe.recv()) is not None:
            try:
                with _printed_to(log_of(Path(job.settings["run.out-dir"])), "a" if job.resume else "w"):
                    _answered(job, pipe.send)
            except DiskError as err:  # its log
                pipe.send(Event(job, "failed", _one_line(err)))
    except (BrokenPipeError, EOFError, KeyboardInterrupt):  # the parent is gone, or wants us gone
        os._exit(1)


def _answered(job: Job, send: Callable[[Event], None]) -> None:
    """Do a job and say how it ended."""
    try:
        _work(job, send)
    except ConfigError as err:
        send(Event(job, "refused", str(err)))
    except (BrokenPipeError, EOFError):
        raise
    except Exception as err:
        with contextlib.suppress(OSError):  # a full disk
            traceback.print_exc()
        send(Event(job, "failed", _one_line(err)))


@contextlib.contextmanager
def _printed_to(path: Path, mode: str) -> Iterator[None]:
    """Send everything the process prints, C libraries included, to a file, opened in `mode`."""
    sys.stdout.flush()
    sys.stderr.flush()
    with disk.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open(mode)
    saved = os.dup(1), os.dup(2)
    with log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a full disk
                sys.stdout.flush()
                sys.stderr.flush()
            for old, place in zip(saved, (1, 2), strict=True):
                os.dup2(old, place)
                os.close(old)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment of the processes started inside; torch reads its thread count from it on import."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Processes started inside never get Ctrl-C, not even while they import: it goes to this one, which ends
    them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_apart(
    jobs: Sequence[Job], workers: int, listen: Listener, enough: Callable[[], bool]
) -> dict[Job, str]:
    spawn = multiprocessing.get_context("spawn")
    todo, failed = list(reversed(jobs)), {}
    crew: dict[Connection, Any] = {}
    started: set[Connection] = set()
    busy: dict[Connection, Job] = {}

    def hire() -> Connection:
        ours, theirs = spawn.Pipe()
        with _environment({**dict.fromkeys(ONE_THREAD, "1"), **QUIET}), _no_ctrl_c():
            process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
        theirs.close()
        crew[ours] = process
        return ours

    def bury(pipe: Connection) -> int | None:
        process = crew.pop(pipe)
        process.join()
        pipe.close()
        if pipe not in started:
            raise WorkerError(_why_none_starts(process.exitcode)) from None
        return process.exitcode

    def give(pipe: Connection) -> None:
        if enough():
            todo.clear()
        try:
            pipe.send(todo[-1] if todo else None)
        except (BrokenPipeError, ConnectionResetError):  # killed since its last job
            bury(pipe)
            if todo:
                give(hire())
            return
        if todo:
            busy[pipe] = todo.pop()

    try:
        for pipe in [hire() for _ in range(min(workers, len(jobs)))]:
            give(pipe)
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                try:
                    event = ready.recv()
                except (EOFError, ConnectionResetError):  # killed, e.g. for memory
                    event = Event(busy[ready], "failed", f"its process died (exit code {bury(ready)})")
                started.add(ready)
                if event == READY:
                    continue
                if event.kind == "refused":
                    raise ConfigError(event.stage)
                if event.kind == "failed":
                    failed[event.job] = event.stage
                listen(event)
                if event.kind in ("done", "failed"):
                    del busy[ready]
                    if ready in crew:
                        give(ready)
                    elif todo:
                        give(hire())
    finally:
        _dismiss(crew, set(busy))
    return failed


def refuse_in_a_worker() -> None:
    """End a worker that is about to start workers itself: the script it imports calls us without a guard."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself asks
        raise SystemExit(1)


def _why_none_starts(exit_code: int | None) -> str:
    return (
        f"a worker ended while it started (exit code {exit_code}). Workers import the script that started "
        'them: a script that compares must do so below `if __name__ == "__main__":`, or with workers=0: '
        "everything in its own process"
    )


def _dismiss(crew: dict[Connection, Any], busy: set[Connection]) -> None:
    """Stop all workers: idle ones were told to end, the busy ones are terminated."""
    for pipe, process in crew.items():
        if pipe in busy:
            process.terminate()
        process.join(timeout=5)
        if process.is_alive():
            process.kill()
            process.join()
        pipe.close()
