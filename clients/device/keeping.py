"""Flower's SuperNode, started again and again until somebody says stop, or until no start mends why it ended.

A SuperNode asks a cloud that is away again by itself, and still ends now and then: by a handshake that broke
off, an answer that nobody expected, a kill. It is started again after a wait, which grows to a minute and is
never the same twice, so that a fleet does not come back all at once. What no start mends ends it in one line:
a certificate that is not good, a key that the cloud does not know, another version, a clock that is off.

A SuperNode takes a message, waits for one reply, and sends that. Where its cloud died while it took one, a
reply too many is left, and from then on each is sent when the next message has come: too late for its round,
for good. One that sends the reply to another message than it took last is ended and started again.

For a minute after a SuperNode was killed its cloud refuses it in the words in which it refuses a stranger. So
a file stands in its folder while it is in, and is taken away when it ends by itself. Where it still stands, a
refusal is waited out, for two minutes.

One line is said for every change: away, let in, refused. What Flower says of messages is passed on once the
device is in; its lines for each attempt are not.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cdc_flower.border import one_line
from cdc_flower.config import ConfigError, RunError
from cdc_flower.lock import locked

MARK = "in"  # the file in the SuperNode's folder, while it is in
WAITS = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0)  # s, at most, before the first, second, ... start after an end
KILLED = 120.0  # s, for which a cloud may take this device for the one that was killed
GOODBYE = 8.0  # s, that a SuperNode has to take its leave of the cloud
POLL = 0.2  # s
TAIL = 60  # lines of one start that are looked through for a reason
TRIES, TRIED = "Connection attempt failed", "Connection successful"
STEP = re.compile(r"\[RUN \d+(?:, ROUND .*?)?\]")  # before each message, of which run and round it is
TAKES, SENDS = "Receiving: ", "Sending: "
IN = re.compile(r"SuperNode ID: (\d+)")
CODE = re.compile(r"Exit Code: (\d+)")
CONNECTION = 305  # Flower's number of a connection that failed, for whatever reason
UNKNOWN_KEY = "[code: 2004]"
NEVER = (
    ("[code: 2001]", "it lets in only devices with a key (start without --insecure)"),
    ("[code: 1001]", "it runs another version of Flower (install the same on both)"),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS at this port"),
    ("RECORD_LAYER_FAILURE", "it speaks no TLS at this port"),
)
CERTIFICATE = re.compile(
    r"CERTIFICATE_VERIFY_FAILED\] certificate verify failed: (.*?)(?: \(_ssl|$)", re.MULTILINE
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
Say = Callable[[str], None]


@dataclass
class Keeper:
    """Who starts a device's SuperNode.

    Attributes:
        command: gives argv and what is added to the environment; asked before each start.
        home: the SuperNode's folder; its lock is held while this runs.
        cloud: its place, for words.
        say: takes one line, without its end.
        stop: ends it when it is set.
        waits: see `WAITS`.
        killed: see `KILLED`.
    """

    command: Callable[[], tuple[Sequence[str], Mapping[str, str]]]
    home: Path
    cloud: str
    say: Say
    stop: threading.Event = field(default_factory=threading.Event)
    waits: Sequence[float] = WAITS
    killed: float = KILLED
    _state: str = ""  # what was said last
    _ended: int = 0  # starts in a row that did not come in
    _held: float | None = None  # since when the cloud takes it for the one before
    _late: bool = False  # the one that runs sends replies to earlier messages

    def keep(self) -> None:
        """Until it is stopped.

        Raises:
            ConfigError: the program is not there, or another one has this folder.
            RunError: the cloud refuses this device for good; one line.
        """
        with locked(self.home):
            while not self.stop.is_set():
                code, said, was_in = self._once()
                if self.stop.is_set():
                    break
                self._after(code, "\n".join(said), was_in)

    def _once(self) -> tuple[int, Sequence[str], bool]:
        """Start it and wait for its end: its code, its last lines, and whether it was in."""
        argv, more = self.command()
        try:
            process = subprocess.Popen(  # noqa: S603
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **more},
                process_group=0,  # a Ctrl-C reaches it through this process alone
                preexec_fn=_with_parent(),
            )
        except OSError as err:
            raise ConfigError(
                f"'{argv[0]}': {err.strerror}; allowed: an environment with flwr installed"
            ) from None
        said, was_in = deque[str](maxlen=TAIL), False
        step = taken = ""
        self._late = False
        try:
            for line in self._lines(process):
                plain = COLOUR.sub("", line)
                if of := STEP.search(plain):
                    step = of[0]
                elif TAKES in plain:
                    taken = step
                elif SENDS in plain:
                    self._late |= step != taken
                if TRIES in plain:
                    self._now("away", f"the cloud at {self.cloud} does not answer; it is asked until it does")
                    continue
                if found := IN.search(plain):
                    was_in, self._ended, self._held = True, 0, None
                    (self.home / MARK).touch()
                    self._now("in", f"the cloud at {self.cloud} lets this device in", again=True)
                elif was_in and TRIED in plain:
                    self._now("in", f"the cloud at {self.cloud} answers again")
                    continue
                said.append(plain)
                if was_in or found:
                    self.say(line)
        finally:
            code = _end(process)
        if code == 0:
            (self.home / MARK).unlink(missing_ok=True)
        return code, said, was_in

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[str]:
        """What it says, until it ended or is stopped; what it started may live longer, and hold the pipe."""
        assert process.stdout is not None
        left, pipe = b"", process.stdout.fileno()
        asked: float | None = None
        with selectors.DefaultSelector() as ready:
            ready.register(pipe, selectors.EVENT_READ)
            while True:
                if (self._late or self.stop.is_set()) and asked is None:
                    asked = time.monotonic()
                    process.terminate()
                over = process.poll() is not None
                if asked is not None and time.monotonic() > asked + GOODBYE:
                    return
                if not ready.select(0 if over else POLL):
                    if over:
                        break
                    continue
                data = os.read(pipe, 65536)
                if not data:
                    process.wait()
                    break
                *whole, left = (left + data).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        if left:
            yield left.decode(errors="replace")

    def _after(self, code: int, said: str, was_in: bool) -> None:
        """Wait for the next start, or refuse it."""
        if UNKNOWN_KEY in said:
            if not (self.home / MARK).exists():
                raise RunError(self._refused("it does not know its key (not registered, or revoked)"))
            now = time.monotonic()
            self._held = now if self._held is None else self._held
            if now - self._held > self.killed:
                (self.home / MARK).unlink()
                raise RunError(self._refused("it does not know its key (revoked meanwhile?)"))
            self._now(
                "held",
                f"the cloud at {self.cloud} still counts on the SuperNode that was killed; let in soon",
            )
        elif why := refusal(code, said):
            raise RunError(self._refused(why))
        elif self._late:
            self._now("away", "the SuperNode sent the reply to an earlier message; it is started again")
        elif code == 0 and not was_in:
            raise RunError(
                self._refused("it takes no signature of it (is its clock right? Flower allows some seconds)")
            )
        else:
            self._now("away", f"the SuperNode ended ({_last(code, said)}); it is started until it stays")
        most = self.waits[min(self._ended, len(self.waits) - 1)]
        self._ended += 1
        self.stop.wait(most * random.uniform(0.5, 1.0))

    def _refused(self, why: str) -> str:
        return f"the cloud at {self.cloud} does not let this device in: {why}"

    def _now(self, state: str, text: str, again: bool = False) -> None:
        """Say what has changed; `again` says it also where it had been said."""
        if state != self._state or again:
            self.say(text)
        self._state = state


def refusal(code: int, said: str) -> str:
    """Why no other start would do better; "" where one may.

    Args:
        code: with which the SuperNode ended.
        said: its last lines.
    """
    if found := CERTIFICATE.search(said):
        return f"its certificate is not believed ({one_line(found[1])})"
    for word, why in NEVER:
        if word in said:
            return why
    number = CODE.search(said)
    if number and code != 0 and int(number[1]) != CONNECTION:
        return f"the SuperNode cannot be started so ({_last(code, said)})"
    return ""


def _last(code: int, said: str) -> str:
    """The last words of a program."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for i, line in enumerate(lines):
        if CODE.search(line):
            return one_line(" ".join(lines[i : i + 4]))
    if code < 0:
        return f"by signal {-code}"
    return one_line(lines[-1]) if lines and code else f"code {code}"


def _end(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; whatever of its group still lives is killed."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return code


def _with_parent() -> Callable[[], None] | None:
    """What makes a process end when the one that starts it does, however that ends."""
    if sys.platform != "linux":
        return None
    libc, death = ctypes.CDLL(None), 1  # PR_SET_PDEATHSIG
    return lambda: libc.prctl(death, signal.SIGTERM)
