"""Programs that are started, killed and started again, with what they said.

For tests and controls with real processes: SuperLinks, SuperNodes, agents. Every program runs in a session of
its own and is ended by its own id, with whatever it has started; a program that was killed leaves no child. A
wait has a deadline, and where it passes, the error has the last lines of every log.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib import request

import psutil

POLL = 0.1  # s
TAIL = 1500  # characters of a log, in an error


@dataclass
class Program:
    """A program, running or not; it can be started more than once, and its log goes on.

    Attributes:
        name: in messages, and of its log.
        command: with its arguments.
        environment: all of it.
        log: what it says, on stdout and stderr.
        starts: how often it was started.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> Program:
        """Start it, or start it again after its end."""
        assert self._process is None or self._process.poll() is not None, f"{self.name} runs"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(  # noqa: S603
                list(self.command),
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                env=dict(self.environment),
                cwd=self.log.parent,
                start_new_session=True,
            )
        self.starts += 1
        return self

    @property
    def pid(self) -> int:
        """Of the program itself; it must have been started."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs, or where it was never started."""
        return None if self._process is None else self._process.poll()

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def family(self) -> list[psutil.Process]:
        """The program and all that it has started and that still lives, orphans of its session included."""
        found = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.pid)
            found = {p.pid: p for p in (own, *own.children(recursive=True))}
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self.pid:
                    found[process.pid] = process
        return list(found.values())

    def kill(self) -> None:
        """SIGKILL for it and all that it has started, at once: as if the power failed."""
        if self._process is None:
            return
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()  # first, or psutil takes its exit code
        psutil.wait_procs([p for p in family if p.pid != self.pid], timeout=10)

    def stop(self, seconds: float = 10.0) -> int | None:
        """SIGTERM, and SIGKILL for what is left after a while; its exit code."""
        if self._process is None:
            return None
        family = self.family()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        left = {p.pid: p for p in (*family, *self.family())}
        for process in left.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs([p for p in left.values() if p.pid != self.pid], timeout=10)
        return self._process.returncode

    def said(self) -> str:
        """All of its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def memory(self) -> int:
        """Resident bytes of it and all that it has started."""
        total = 0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total


def until(
    condition: Callable[[], object], seconds: float, what: str, programs: Iterable[Program] = ()
) -> None:
    """Wait for a condition.

    Args:
        condition: asked every `POLL` seconds.
        seconds: how long at most.
        what: is waited for, in the error.
        programs: whose logs the error ends with.

    Raises:
        TimeoutError: it did not come true.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s not: {what}\n{tails(programs)}")
        time.sleep(POLL)


def tails(programs: Iterable[Program]) -> str:
    """The last of what programs said, one after another."""
    return "\n".join(
        f"--- {p.name} ({'runs' if p.runs else f'ended with {p.code}'}): {p.log}\n{p.said()[-TAIL:]}"
        for p in programs
    )


def answers(url: str, trust: ssl.SSLContext | None = None) -> bool:
    """Whether the SuperLink at a URL answers.

    Args:
        url: without a path.
        trust: whose certificate it may have; None where it speaks plain HTTP.
    """
    with contextlib.suppress(OSError), request.urlopen(f"{url}/health", timeout=2, context=trust) as said:  # noqa: S310
        return said.status == 200
    return False


def silent(
    url: str, code: Callable[[], int | None], seconds: float, trust: ssl.SSLContext | None = None
) -> str:
    """Wait until a SuperLink answers; "" once it does, else why it does not.

    Args:
        url: see `answers`.
        code: its exit code; None while it runs.
        seconds: to wait, at most.
        trust: see `answers`.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and code() is None:
        if answers(url, trust):
            return ""
        time.sleep(0.2)
    ended = code()
    return f"no answer in {seconds:.0f} s" if ended is None else f"it ended with code {ended}"
