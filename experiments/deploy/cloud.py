"""A cloud kept up: gate, page, SuperLink and the ServerApp's run, each started again when it died.

Whether the ServerApp lives says the lock of the run folder, which its process holds: `flwr run` ends with 0
whatever became of the run, and Flower itself notices a dead ServerApp after a minute. A run that is over is
followed by another, which goes on after the newest checkpoint. What follows on a death waits a little longer
each time, and begins anew with short waits once the cloud has lived for a while.

The keys of `devices.json` are made known to the SuperLink, and taken from it, whenever that file changes.
Each is written down as soon as the SuperLink knows it; one that it knew and nobody wrote down, because this
process was killed between the two, is found by its key, and one that no device of the list has is taken from
it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdc_flower.border import one_line
from cdc_flower.config import ConfigError, RunError
from cdc_flower.disk import DiskError, writing
from cdc_flower.lock import locked, taken
from cdc_flower.programs import free_port
from experiments.deploy import checking, gate, keys, page, provision
from experiments.deploy.settings import CloudConfig, cloud
from experiments.deploy.superlink import SuperLink, SuperLinkError
from strategies.served import devices
from strategies.served.devices import Device
from strategies.served.settings import RUN

TICK = 1.0  # s, between looks
ASK = 5.0  # s, between questions to the SuperLink about a run whose process is not seen
LONG = 120.0  # s, after which a start counts as one that went well
WAITS = (1.0, 2.0, 5.0, 15.0, 60.0)  # s, before the first, second, ... start after a death
NEVER = 3  # runs that failed before any process of them was seen end the cloud
AGAIN = 60.0  # s, until the SuperLink is asked again about keys after it refused one
DAY = 86_400.0  # s, between two warnings that the server's certificate ends soon
ROOM = 2**20  # bytes that must be free, or nothing is started
LOG_BYTES = 32 * 2**20  # of a log of the SuperLink's; one such file before it is kept
Say = Callable[[str], None]


def up(folder: Path, stop: threading.Event, say: Say) -> None:
    """Keep a cloud up until it is told to stop, or has done its last round.

    Raises:
        ConfigError: its settings cannot be used, a port is taken, or the cloud is up already.
        RunError: its SuperLink or its run never came up.
    """
    folder = folder.absolute()
    own = cloud(folder)
    run_config = checking.run_config(folder, own, provision.settings_of(folder))
    with ExitStack() as held:
        held.enter_context(locked(folder))
        checking.check(folder, run_config)
        link = SuperLink(folder, free_port(), own.insecure)
        link.prepare(run_config)
        known, ended = threading.Event(), threading.Event()
        port = held.enter_context(_gate(folder, own, link, known.is_set, ended.set))
        if own.insecure:
            say("warning: insecure = true: no TLS and no keys; anybody who reaches the port is a device")
        say(f"devices come to {own.address}:{port}, called {own.hosts}")
        if own.page_port:
            shown = held.enter_context(page.shown(folder, own.page_port))
            say(f"page: http://127.0.0.1:{shown}")
        Keeper(folder, link, stop, say, known=known, ended=ended).keep()


def _gate(
    folder: Path, own: CloudConfig, link: SuperLink, ready: Callable[[], bool], ended: Callable[[], None]
) -> Any:
    if own.insecure:
        return gate.opened(link.url, own.port, own.address, ready=ready, ended=ended)
    keys.check_server(folder)
    safe: dict[str, Any] = {"certificate": folder / keys.SERVER_CERT, "key": folder / keys.SERVER_KEY}
    return gate.opened(link.url, own.port, own.address, ca=link.ca, ready=ready, ended=ended, **safe)


@dataclass
class Keeper:
    """Who looks after the SuperLink and the run.

    Attributes:
        run: the id of the run that is under way; "" = none.
        known: set once the SuperLink was told whose keys are good: a device that came earlier would be taken
            for a stranger, and one that was revoked while the cloud was down let in.
        ended: set when the gate is no more.
    """

    folder: Path
    link: SuperLink
    stop: threading.Event
    say: Say
    clock: Callable[[], float] = time.monotonic
    run: str = ""
    known: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    _since: float = 0.0  # when this run was submitted
    _asked: float = 0.0  # when its status was asked
    _seen: bool = False  # whether its process was
    _never: int = 0  # runs in a row whose process was not
    _deaths: int = 0
    _not_before: float = 0.0
    _known: tuple[int, int] = (0, 0)  # devices.json when it was looked at last
    _said: set[str] = field(default_factory=set)
    _no_room: bool = False
    _unread: str = ""  # why keys are not as devices.json says
    _again: float = 0.0  # when they are looked at again
    _warn: float = 0.0  # when the server's certificate is

    def keep(self) -> None:
        """Until it is stopped, or the run is completed.

        Raises:
            RunError: nothing ever came up.
        """
        try:
            while not self.stop.is_set() and not self.tick():
                self.stop.wait(TICK)
        finally:
            self._end()

    def tick(self) -> bool:
        """One look; True when the run is completed."""
        if self.ended.is_set():
            raise RunError("the gate ended, and no device reaches the cloud; `cdc-flower cloud up` starts it")
        try:
            self._certificate()
            if self._full() and not (self.link.program.runs and self.run):
                return False  # what would be started could not write
            if not self.link.program.runs:
                self._start()
                return False
            self._registered()
            for log in (self.link.program.log, self.link.flower_log):
                _bounded(log)
            return self._look() if self.run else self._submit()
        except (SuperLinkError, DiskError) as err:
            if self._never >= NEVER:
                raise
            self._died(one_line(str(err)))
            return False
        except OSError as err:  # no file is left, say; what runs goes on
            self._died(one_line(f"the cloud cannot be looked after now: {err}"))
            return False

    def _certificate(self) -> None:
        """Say, once a day, that the server's certificate ends soon."""
        if self.link.insecure or self.clock() < self._warn:
            return
        self._warn = self.clock() + DAY
        if why := keys.ending(self.folder):
            self.say(f"warning: {why}")

    def _full(self) -> bool:
        """Whether the folder's disk is full, which is said when it begins and when it ends."""
        was, self._no_room = self._no_room, shutil.disk_usage(self.folder).free < ROOM
        if self._no_room and not was:
            self.say(f"the disk of '{self.folder}' is full; the cloud waits for room and loses nothing")
        if was and not self._no_room:
            self.say("there is room again, and the cloud goes on")
        return self._no_room

    def _died(self, why: str) -> None:
        """Say why, once, and when the next start may be."""
        if why not in self._said:
            self.say(why)
            self._said = {why}
        self._not_before = self.clock() + WAITS[min(self._deaths, len(WAITS) - 1)]
        self._deaths += 1

    def _start(self) -> None:
        if self.link.program.starts:
            if self.run:
                self.say(f"the SuperLink died (code {self.link.program.code}) and is started again")
            self.link.program.kill()  # what it had started
            self.run = ""
        if self.clock() < self._not_before:
            return
        try:
            self.link.start()
        except SuperLinkError:
            self._never += 1
            raise
        self._known, self._again = (0, 0), 0.0

    def _submit(self) -> bool:
        if self.clock() < self._not_before:
            return False
        self.run = self.link.submit()
        self._since = self._asked = self.clock()
        self._seen = False
        return False

    def _look(self) -> bool:
        """What became of the run; True when it is completed."""
        now = self.clock()
        if taken(self.folder / RUN):
            if not self._seen:
                self.say("the cloud runs")
                self._seen, self._never = True, 0
            if now - self._since > LONG:
                self._deaths, self._said = 0, set()
            return False
        if not self._seen and now - self._asked < ASK:
            return False
        self._asked = now
        status, details = self.link.status(self.run)
        if status == "finished:completed":
            self.say("the last round is done")
            self.run = ""
            return True
        if not status.startswith("finished"):
            if not self._seen:
                return False  # it is still starting
            with suppress(SuperLinkError):
                self.link.stop_run(self.run)
            details = "its process ended"
        self._never += not self._seen
        self.run = ""
        if self._never >= NEVER:
            raise RunError(f"the cloud's run failed {NEVER} times before it began: {one_line(details)}")
        self._died(f"the run ended: {one_line(details or status)}; another goes on from the checkpoint")
        return False

    def _end(self) -> None:
        """End the run, then the SuperLink with whatever is left."""
        if self.run and self.link.program.runs:
            with suppress(SuperLinkError, OSError):
                self.link.stop_run(self.run)
        self.link.stop()

    # --- keys -----------------------------------------------------------------------------------------------

    def _registered(self) -> None:
        """See `_register`; what cannot be read, written or registered now ends nothing that runs."""
        if self.link.insecure:
            self.known.set()
        if self.link.insecure or self.clock() < self._again:
            return
        told = True
        try:
            why = self._register()
        except (ConfigError, DiskError, OSError) as err:
            why = f"keys are as they were: {one_line(str(err))}"
        except SuperLinkError as err:
            why, told = f"keys are as they were: {one_line(str(err))}", False
            self._again = self.clock() + AGAIN
        if why and why != self._unread:
            self.say(why)
        self._unread = why
        if told:
            self.known.set()

    def _register(self) -> str:
        """Make the SuperLink know the keys of `devices.json`, and no others; why one is missing, or ""."""
        why = ""
        with suppress(FileNotFoundError):
            at = self._stamp()
            if at == self._known:
                return ""
            there = self._put_out()
            for number in [n for n, one in devices.read(self.folder).items() if _waits(one, there)]:
                if self.stop.is_set():
                    return why
                try:
                    self._let_in(number, there)
                except SuperLinkError as err:
                    why = why or f"device {number} is not registered: {one_line(str(err))}"
                    self._again = self.clock() + AGAIN
            if not why and at == self._stamp():
                self._known = at  # else it is looked at again: something was written
        return why

    def _stamp(self) -> tuple[int, int]:
        """Another one for every list of devices that is written."""
        at = (self.folder / devices.FILE).stat()
        return at.st_mtime_ns, at.st_ino

    def _put_out(self) -> set[int]:
        """Take keys from the SuperLink that it must not know, and write down which it knows already.

        Returns:
            The nodes that it had.
        """
        with devices.changing(self.folder, TICK) as now:
            there = self.link.nodes()
            gone = {k.node_id for one in now.values() for k in one.revoked if k.node_id is not None}
            lost = there - {k.node_id for one in now.values() for k in (one, *one.old)}
            known = self.link.keys() if lost else {}
            waits = {_key(one.public_key): n for n, one in now.items() if _waits(one, there)}
            found = {waits[known[n]]: n for n in sorted(lost) if known.get(n) in waits}
            for node in sorted((gone & there) | (lost - set(found.values()))):
                self.link.unregister(node)
                self.say(f"node {node} is let in no longer")
            for number, one in now.items():
                now[number] = _after(one, gone, found.get(number))
        return there

    def _let_in(self, number: int, there: set[int]) -> None:
        """Register a device's key, and write that down at once; nobody changes the list meanwhile."""
        with devices.changing(self.folder, TICK) as now:
            one = now.get(number)
            if one is None or not _waits(one, there):
                return
            file = self.link.home / "keys" / f"{number}.pub"
            with writing(file):
                file.parent.mkdir(exist_ok=True)
                file.write_text(one.public_key + "\n", encoding="utf-8")
            node = self.link.register(file, one.name)
            now[number] = _after(one, set(), node)
        self.say(f"device {number} ({one.name}) is registered, as node {node}")


def _waits(one: Device, there: set[int]) -> bool:
    """Whether a device's key is to be registered: it was not, or with a SuperLink that lost its database."""
    return one.status == "made" or (one.status == "registered" and one.node_id not in there)


def _key(line: str) -> str:
    """A public key without the comment behind it."""
    return " ".join(line.split()[:2])


def _after(one: Device, gone: set[int], node: int | None) -> Device:
    """A device's entry after keys were unregistered, and its own registered as that of a node."""
    old = tuple(k for k in one.old if k.node_id is not None and k.node_id not in gone)
    one = dataclasses.replace(one, old=old)
    if node is not None:
        return dataclasses.replace(one, node_id=node, status="registered")
    if one.status == "revoked" and one.node_id in gone:
        return dataclasses.replace(one, node_id=None)
    return one


def _bounded(log: Path) -> None:
    """Put a log away that has grown too long; its writer goes on at the end of the same file."""
    with suppress(OSError):
        if log.stat().st_size > LOG_BYTES:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)
