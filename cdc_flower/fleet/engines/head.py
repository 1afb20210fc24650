"""A Ray of this process's own, watched: where raylet or GCS has died, the run ends, soon, in one line.

Ray itself waits for minutes for what will not come back, prints its logs, and leaves processes behind. Here a
thread looks every second whether both processes live. Who waits for Ray asks `check`; a run that is at other
work (the cloud's) is interrupted as by Ctrl-C. Every process that Ray started here is remembered by its id
and its start time, so that `close` ends these and no others, and removes Ray's session folder. Clusters that
were there before are not watched, and nothing of theirs is ended.
"""

from __future__ import annotations

import _thread
import contextlib
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from cdc_flower.config import RunError

CORE = ("raylet", "gcs_server")  # without either, no task is ever answered again
LOOK_SECONDS = 1.0  # between two looks
HEAR_SECONDS = 2.0  # until a run that does not ask is interrupted
END_SECONDS = 10.0  # for processes to end
RESUME = "the run goes on after its last checkpoint with --resume"


class RayDied(RunError):
    """A process of Ray's without which no task is answered has ended."""


class Head:
    """The connection to Ray, and the processes of a Ray that was started for it.

    Args:
        start: connects this process to Ray and returns what `ray.init` does.
        ours: Ray is started by it, not only found.

    Raises:
        RayDied: it does not start.
    """

    def __init__(self, start: Callable[[], Any], ours: bool) -> None:
        before = set(psutil.Process().children())
        self._own: set[psutil.Process] = set()
        self._seen: set[psutil.Process] = set()
        self._session: Path | None = None
        self._lost = ""
        self._heard, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch-ray", daemon=True)
        if not ours:
            start()
            return
        try:
            self._session = Path(start().address_info["session_dir"])
        except (RuntimeError, OSError, AssertionError) as err:
            self._own = set(psutil.Process().children()) - before
            self.close()
            said = (str(err).splitlines() or [type(err).__name__])[0]
            raise RayDied(f"Ray did not start on this machine: {said}") from None
        self._own = set(psutil.Process().children()) - before
        self._core = {process: process.name() for process in self._own if process.name() in CORE}
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether Ray has died."""
        return bool(self._lost)

    def check(self) -> None:
        """Nothing, while Ray lives.

        Raises:
            RayDied: it does not.
        """
        if self._lost:
            self._heard.set()
            raise RayDied(self._lost)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()
            dead = [process for process in self._core if not lives(process)]
            if not dead:
                continue
            self._lost = f"Ray's {self._core[dead[0]]} (process {dead[0].pid}) has ended; {RESUME}"
            if not self._heard.wait(HEAR_SECONDS) and not self._over.is_set():
                _thread.interrupt_main()
            return

    def _look(self) -> None:
        """Remember what Ray's processes have started, while it can be seen who started whom."""
        for process in self._own:
            with contextlib.suppress(psutil.Error):
                self._seen.update(process.children(recursive=True))

    def close(self) -> None:
        """End Ray and what is left of it; the second time nothing."""
        import ray

        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._look()
        ours = self._own | self._seen
        if self._lost:  # a shutdown asks processes that do not answer
            _kill(ours)
        ray.shutdown()
        _kill(ours)
        self._own, self._seen = set(), set()
        if self._session is not None:
            latest = self._session.with_name("session_latest")
            if latest.is_symlink() and latest.readlink().name == self._session.name:
                latest.unlink(missing_ok=True)
            shutil.rmtree(self._session, ignore_errors=True)


def lives(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kill(processes: set[psutil.Process]) -> None:
    """End processes, each by its own id, unless that is another's by now."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=END_SECONDS)
