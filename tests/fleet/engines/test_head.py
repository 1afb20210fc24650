"""Ray is watched where it was started here: its death is one line, soon, and nothing of it is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cdc_flower.fleet.engines import head
from cdc_flower.fleet.engines.head import Head, RayDied, lives
from experiments.controls.kill_and_resume import SETTINGS

ROOT = Path(__file__).parents[3]
WITHIN = 15.0  # s, from a death to the end of the command, on a machine that does nothing else


@pytest.fixture
def ray(tmp_path):
    """Processes that are named as Ray's and do nothing, one of them with a child, and a session folder."""
    session = tmp_path / "session_1"
    session.mkdir()
    (tmp_path / "session_latest").symlink_to(session)
    sleep = shutil.which("sleep")
    assert sleep is not None
    for name in (*head.CORE, "monitor"):
        shutil.copy(sleep, tmp_path / name)
    started = []

    def start():
        started.extend(subprocess.Popen([tmp_path / name, "100"]) for name in (*head.CORE, "monitor"))
        started.append(subprocess.Popen(["sh", "-c", f"{tmp_path / 'monitor'} 99 & wait"]))
        return SimpleNamespace(address_info={"session_dir": str(session)})

    yield SimpleNamespace(start=start, started=started, session=session)
    for process in started:
        process.kill()
        process.wait()


def raised_within(watch: Head, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            watch.check()
        except RayDied as err:
            return str(err)
        time.sleep(0.05)
    return "nothing"


@pytest.mark.parametrize("which", head.CORE)
def test_a_process_that_dies_is_named_and_all_others_end(which, ray):
    other = subprocess.Popen(["sleep", "100"])
    watch = Head(ray.start, ours=True)
    assert raised_within(watch, 1.5) == "nothing"
    everyone = [p for s in ray.started for p in (psutil.Process(s.pid), *psutil.Process(s.pid).children())]
    assert len(everyone) == 5
    ray.started[head.CORE.index(which)].kill()
    pid = ray.started[head.CORE.index(which)].pid
    assert raised_within(watch, 60) == f"Ray's {which} (process {pid}) has ended; {head.RESUME}"
    watch.close()
    assert not any(lives(process) for process in everyone)
    assert list(ray.session.parent.glob("session*")) == []
    assert other.poll() is None
    other.kill()
    other.wait()
    watch.close()


@pytest.fixture
def heard():
    """Interrupts are heard, also in a shell's background, where they are ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_who_does_not_ask_is_interrupted(ray, monkeypatch):
    monkeypatch.setattr(head, "HEAR_SECONDS", 0.1)
    watch = Head(ray.start, ours=True)
    ray.started[0].kill()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(120)
    assert watch.lost
    watch.close()


def test_a_ray_that_was_there_is_not_watched_and_nothing_of_it_ends(ray):
    watch = Head(ray.start, ours=False)
    ray.started[0].kill()
    assert raised_within(watch, 2) == "nothing"
    watch.close()
    assert [s.poll() is None for s in ray.started[1:]] == [True] * 3
    assert ray.session.is_dir()


def test_a_ray_that_does_not_start_is_one_line_and_leaves_nothing(ray):
    def start():
        ray.start()
        raise RuntimeError("no port\nis free")

    with pytest.raises(RayDied, match="^Ray did not start on this machine: no port$"):
        Head(start, ours=True)
    assert [s.poll() is None for s in ray.started] == [False] * 4


def begun(*arguments: str) -> subprocess.Popen[str]:
    """A run on Ray workers."""
    command = [sys.executable, "-m", "experiments.cli.app", "simulate", "--engine", "fleet", "--workers", "2"]
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


def fresh(folder: Path) -> list[str]:
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    return ["--out", str(folder), *sets]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run says that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = begun(*fresh(folder))
    run.communicate(timeout=300)
    found = json.loads((folder / "run.json").read_text())
    return {name: found[name] for name in ("status", "ledger_digest", "adapter_digest", "accuracy")}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "rounds"])
@pytest.mark.parametrize("which", head.CORE)
def test_a_run_whose_ray_dies_says_so_soon_leaves_nothing_and_resumes(which, moment, whole, tmp_path):
    folder = tmp_path / "run"
    run = begun(*fresh(folder))
    core = None
    wanted = folder / ("config.json" if moment == "start" else "rounds.parquet")
    while run.poll() is None and not (core and wanted.exists()):
        core = next((p for p in psutil.Process(run.pid).children() if p.name() == which), None)
        time.sleep(0.02)
    assert core is not None
    everyone = psutil.Process(run.pid).children(recursive=True)
    session = next(part for word in core.cmdline() for part in word.split("=") if "/session_" in part)
    session = session[: session.index("/", session.index("/session_") + 1)]
    assert Path(session).is_dir()
    core.kill()
    died = time.monotonic()
    said, _ = run.communicate(timeout=300)
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert time.monotonic() - died < WITHIN * busy
    assert run.returncode == 1
    lines = [line for line in said.splitlines() if not line.startswith(("preset ", "cdc"))]
    assert lines == [f"error: Ray's {which} (process {core.pid}) has ended; {head.RESUME}"]
    assert not any(lives(process) for process in everyone)
    assert not Path(session).exists()
    assert not (folder / ".lock").exists()
    again = begun("--resume", str(folder))
    again.communicate(timeout=300)
    assert again.returncode == 0
    found = json.loads((folder / "run.json").read_text())
    assert {name: found[name] for name in whole} == whole
