"""Kill a run at random moments, resume it, and compare it with one that was left alone.

`python -m experiments.controls.kill_and_resume [--kills 20] [--out FOLDER]` starts `cdc-flower simulate` in a
process of its own, sends it SIGKILL after a while, resumes it with `--resume` until it is done, and compares
ledger, adapter, rounds, metrics and pictures with those of an uninterrupted run, bit for bit. The moments are
drawn from a seed and spread evenly: a quarter over the start-up, the others over the rounds, which begin when
config.json is written (models and data are loaded then). A process that is killed before is started again
instead: its folder is no run yet."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

SETTINGS = {
    "run.rounds": 4,
    "run.devices": 3,
    "run.samples-per-round": 4,
    "cloud.steps": 3,
    "cloud.source-replay": 50,
    "run.eval-every": 2,
    "data.scenes-train": 300,
    "data.scenes-test": 100,
    "data.items-per-domain": 20,
}
"""A run of seconds."""
EXACT = ("status", "rounds_done", "accuracy", "forgetting", "ledger_digest", "adapter_digest")
PATIENCE = 300.0  # s, for a process to end
IN_STARTUP = 0.25  # share of the kills
POLL = 0.01  # s


@dataclass(frozen=True)
class Kill:
    """One run that was killed.

    Attributes:
        seconds: from the start of the process to SIGKILL.
        reached: rounds in rounds.parquet then; None = the folder was no run yet.
        used: the round of the checkpoint it was resumed from; None = it started from the beginning.
        differs: what is not as in the uninterrupted run; () = it is equal bit for bit.
    """

    seconds: float
    reached: int | None
    used: int | None
    differs: tuple[str, ...]


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for the host's seconds; tables as text, where NaN equals NaN."""
    from cdc_flower import results

    found = results.read(folder)
    pictures = found.pictures.to_dict("records")
    return {
        **{name: found.run.get(name) for name in EXACT},
        "rounds": repr(found.rounds.to_dict("list")),
        "metrics": repr(found.metrics.to_dict("list")),
        "devices": repr(found.devices.drop(columns="host_seconds").to_dict("list")),
        "pictures": [{**row, "positions": list(row["positions"])} for row in pictures],
    }


def _start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "experiments.cli.app", "simulate", *arguments]
    with log.open("ab") as said:
        return subprocess.Popen(  # noqa: S603
            command, stdout=said, stderr=said, cwd=Path(__file__).parents[2], env=dict(os.environ)
        )


def _fresh(folder: Path, method: str) -> list[str]:
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    return ["--method", method, "--out", str(folder), *sets]


def _end(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a process to end well.

    Raises:
        RuntimeError: it did not.
    """
    try:
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
    if code:
        raise RuntimeError(f"simulate ended with {code}; log: {log}")


def _begun(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the run in `folder` has begun, or its process has ended."""
    while process.poll() is None and not (folder / "config.json").exists():
        time.sleep(POLL)


def _lengths(folder: Path, method: str, log: Path) -> tuple[float, float]:
    """Let a run end; seconds of its start-up and of its rounds."""
    start = time.perf_counter()
    process = _start(_fresh(folder, method), log)
    _begun(process, folder)
    begun = time.perf_counter()
    _end(process, log)
    return begun - start, time.perf_counter() - begun


def _kill(folder: Path, seconds: float, in_startup: bool, method: str, log: Path) -> tuple[float, int | None]:
    """Start a run and kill it `seconds` after its start or after its rounds began; the time it had, and the
    rounds it wrote.
    """
    from cdc_flower import results

    start = time.perf_counter()
    process = _start(_fresh(folder, method), log)
    if not in_startup:
        _begun(process, folder)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    lived = time.perf_counter() - start
    process.wait()
    if not (folder / "config.json").exists():
        return lived, None
    return lived, max(results.read(folder).rounds["round"].tolist(), default=-1)


def kill_and_resume(
    out: Path, kills: int = 20, method: str = "cdc", seed: int = 0, tell: Any = lambda kill: None
) -> list[Kill]:
    """See the module.

    Args:
        out: a new or empty folder.
        kills: how many runs are killed.
        method: what runs.
        seed: of the moments.
        tell: called with each `Kill`.
    """
    from cdc_flower import results

    out.mkdir(parents=True, exist_ok=True)
    whole, rng = out / "whole", random.Random(seed)
    startup, rounds = _lengths(whole, method, out / "whole.log")
    expected, early, done = outcome(whole), round(kills * IN_STARTUP), []
    moments = [(startup * (i + rng.random()) / early, True) for i in range(early)]
    moments += [(rounds * (i + rng.random()) / (kills - early), False) for i in range(kills - early)]
    for i, (seconds, in_startup) in enumerate(moments):
        folder, log = out / f"killed-{i:02d}", out / f"killed-{i:02d}.log"
        lived, reached = _kill(folder, seconds, in_startup, method, log)
        completed = reached is not None and results.read(folder).status == "completed"
        if not completed:  # the process may have been faster than the moment
            _end(_start(_fresh(folder, method) if reached is None else ["--resume", str(folder)], log), log)
        found = outcome(folder)
        used = results.read(folder).info.get("resumed_after")
        differs = tuple(name for name in expected if found[name] != expected[name])
        done.append(Kill(lived, reached, used, differs))
        tell(done[-1])
    return done


def row(kill: Kill) -> str:
    """A line of the log."""
    reached = "not begun" if kill.reached is None else "no round" if kill.reached < 0 else str(kill.reached)
    used = "-" if kill.used is None else str(kill.used)
    return f"{kill.seconds:8.2f}  {reached:>9}  {used:>10}  {', '.join(kill.differs) or 'equal'}"


HEADER = f"{'kill (s)':>8}  {'reached':>9}  {'checkpoint':>10}  result"


def main(
    kills: Annotated[int, typer.Option(help="Runs to kill.", min=1)] = 20,
    out: Annotated[Path | None, typer.Option(help="A new folder; default: a temporary one.")] = None,
    method: Annotated[str, typer.Option(help="What runs.")] = "cdc",
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Kill runs at random moments, resume them and compare."""
    target = out or Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    typer.echo(HEADER)
    found = kill_and_resume(target.absolute(), kills, method, seed, lambda kill: typer.echo(row(kill)))
    bad = sum(bool(kill.differs) for kill in found)
    typer.echo(f"{len(found) - bad} of {len(found)} equal; runs and logs: {target}")
    raise typer.Exit(bad > 0)


if __name__ == "__main__":
    typer.run(main)
