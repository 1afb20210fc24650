"""The resident half of a device: it answers what it is asked, and does the work of the cloud's orders.

The student is loaded once. Between orders the agent reads its feed, answers, and spools what it was asked
with how uncertain it was. A TRAIN order is done by the very generator that simulated devices run, over the
most valuable samples that wait. Reply, state and the samples that went up are written in one transaction: a
device that loses power before it does the order again, one that loses power after it has it done, and either
way every sample counts once. An order that cannot be done is an error reply, and the agent goes on.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from flwr.app import RecordDict

from cdc_flower.config import RunError
from cdc_flower.fleet.engines.adapter_files import sweep
from cdc_flower.wire.messages import copied, state_bytes, state_of
from clients.device import bounds, conditions, orders
from clients.device.answering import ROWS, ItemError, Read, Student
from clients.device.database import Damaged, Database
from clients.device.feed import Encoded, Feed, Item, round_key
from clients.device.mailbox import Mailbox, Order, Reply
from clients.device.settings import Bundle
from clients.device.spool import New, Spool
from clients.store import Adapter, Store

PAUSE = 0.02  # s, between two looks into mailbox and feed
FEED_PAUSE = 0.5  # s, between two looks into a feed that had nothing
AGAIN = 5.0  # s, after a disk that is full
STATE, SECRET = "state", "secret"  # facts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """What the student said.

    Attributes:
        text: the answer.
        entropy: how uncertain it was [nats].
        confidence: exp of the mean log-probability of its words.
        version: of the adapter.
        seconds: it took, the picture encoder included.
    """

    text: str
    entropy: float
    confidence: float
    version: int
    seconds: float


@dataclass
class Done:
    """What the agent has done since it began, for whoever looks at it.

    Attributes:
        answered: items.
        refused: items that could not be answered.
        seconds: that answers took.
        orders: that have a reply.
        errors: of these, error replies.
        refused_updates: orders after which the device has another version than the cloud's newest.
        bytes_up, bytes_down: of replies and orders.
        round: of the last order; 0 = none.
        held_back: why the last reply had no samples; "" = it could have some.
    """

    answered: int = 0
    refused: int = 0
    seconds: float = 0.0
    orders: int = 0
    errors: int = 0
    refused_updates: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    round: int = 0
    held_back: str = ""


@dataclass(eq=False)
class Agent:
    """A device that runs. Threads may ask it; it does one thing at a time.

    Attributes:
        bundle: of the device.
        student: its models.
        spool: its samples.
        mailbox: orders and replies.
        feed: what it is asked.
        state: the records that device work keeps.
        secret: which no cloud knows.
        done: so far.
    """

    bundle: Bundle
    student: Student
    spool: Spool
    mailbox: Mailbox
    feed: Feed
    state: RecordDict
    secret: bytes
    done: Done = field(default_factory=Done)
    _busy: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def of(cls, bundle: Bundle, student: Student, database: Database, feed: Feed) -> Agent:
        """The agent of a bundle, as it was when it ended last.

        Raises:
            RunError: the database is damaged.
        """
        own = bundle.device
        spool = Spool(database, own.spool_samples, own.spool_bytes)
        if odd := spool.fit(student.shared.width):
            _log.warning("%s samples are dropped: they are of another model", odd)
        with database.transaction():
            secret = database.fact(SECRET)
            if secret is None:
                secret = secrets.token_bytes(16)
                database.know(SECRET, secret)
            kept = database.fact(STATE)
        try:
            state = state_of(kept) if kept else RecordDict()
        except Exception as err:  # protobuf's own
            raise Damaged(
                f"'{database.path}' is damaged (state: {type(err).__name__}); move it away"
            ) from None
        return cls(bundle, student, spool, Mailbox(database), feed, state, secret)

    @property
    def store(self) -> Store:
        """What the device keeps; the agent sweeps the folder, once the state is on the disk."""
        return Store(self.state, self.bundle.adapters, shared=True)

    @property
    def adapter(self) -> Adapter:
        """What the student wears; work that learns on the device keeps what else it needs behind it."""
        held, size = self.store.held(self.student.resident.initial), len(self.student.resident.initial.flat)
        return held if len(held.flat) == size else Adapter.of(held.flat[:size], held.version)

    def ask(self, question: str, picture: Encoded, *, spool: bool = True) -> Answered:
        """Answer one question about a picture or a clip.

        Args:
            spool: keep it as a sample, too.

        Raises:
            ItemError: it cannot be answered.
        """
        began = time.perf_counter()
        with self._busy:
            read = self.student.read(Item(question, picture, ""))
            adapter = self.adapter
            answers = self.student.answer([read], adapter)
            seconds = time.perf_counter() - began
            self._answered([read], answers.texts, answers.entropy.tolist(), seconds, None if spool else ())
        return Answered(
            answers.texts[0],
            float(answers.entropy[0]),
            float(answers.confidence[0]),
            adapter.version,
            seconds,
        )

    def read_feed(self) -> int:
        """Answer and spool what is new in the feed; how many items were read."""
        with self._busy:
            items = self.feed.poll(ROWS)
            self._take_in(items)
            place = self.feed.place()
            if place and place != self.spool.fed:
                self.spool.add((), place)
            return len(items)

    def _take_in(self, items: Sequence[Item]) -> None:
        """Answer items and spool them, all or none; what was spooled before is left out."""
        if not items:
            return
        began, read, texts, entropy = time.perf_counter(), list[Read](), list[str](), list[float]()
        for item in items:
            try:
                read.append(self.student.read(item))
            except ItemError as err:
                self.done.refused += 1
                _log.warning("item '%s' of the feed is left out: %s", item.key, err)
        for start in range(0, len(read), ROWS):
            answers = self.student.answer(read[start : start + ROWS], self.adapter)
            texts += answers.texts
            entropy += answers.entropy.tolist()
        self._answered(read, texts, entropy, time.perf_counter() - began, items)
        self.feed.spooled(items[-1].key)

    def _answered(
        self,
        read: Sequence[Read],
        texts: Sequence[str],
        entropy: Sequence[float],
        seconds: float,
        items: Sequence[Item] | None,
    ) -> None:
        """Spool what was answered: of these items of the feed; None = of no feed, () = not at all."""
        pictures = self.student.config.uplink.unit != "tokens"
        new = [
            New(
                r.item.question,
                r.tokens,
                r.grid,
                text,
                value,
                r.item.picture if pictures and isinstance(r.item.picture, bytes) else b"",
                r.item.key,
            )
            for r, text, value in zip(read, texts, entropy, strict=True)
        ]
        if items is None or items:
            self.spool.add(new, items[-1].key if items else None)
        self.done.answered += len(read)
        self.done.seconds += seconds

    def do_order(self) -> bool:
        """Do the order that waits; whether there was one."""
        order = self.mailbox.waits()
        if order is None:
            return False
        with self._busy:
            began, before = time.perf_counter(), self.adapter.version
            self.done.round, self.done.held_back = order.round, ""
            try:
                count, numbers, size = self._work(order)
            except Damaged:
                raise
            except Exception as err:
                _log.warning("round %s: %s: %s", order.round, type(err).__name__, err)
                self.mailbox.answer(order.round, Reply(b"", f"{type(err).__name__}: {err}"))
                self.done.errors += 1
            else:
                _log.info(
                    "round %s: version %s -> %s, %s of %s samples up in %s bytes%s, %.1f s",
                    *(order.round, before, self.adapter.version, numbers, count, size),
                    f" ({self.done.held_back})" if self.done.held_back else "",
                    time.perf_counter() - began,
                )
            self.done.orders += 1
        return True

    def _work(self, order: Order) -> tuple[int, int, int]:
        """Do an order and write its reply; how many samples it was about, how many went up, and its bytes."""
        content, taken, refused = orders.read(order)
        self.spool.settle(order.round, taken, refused)
        if self.spool.fed < round_key(order.round):
            self._take_in(self.feed.asked(order.round))
        self.done.held_back = conditions.may_send(self.bundle.device, conditions.read(self.bundle.state))
        most = 0 if self.done.held_back else self.student.config.run.samples_per_round
        samples = orders.chosen(self.spool, order.round, most)
        initial, state = self.student.resident.initial, copied(self.state)
        store = Store(state, self.bundle.adapters, shared=True)
        task = orders.task(self.bundle, self.student, content, samples, store, self.secret)
        reply = orders.work(task)
        bounds.check(store.held(initial), initial, self.bundle.device.furthest)
        numbers, data, kept = (
            orders.went_up(reply, self.student, samples),
            state_bytes(reply),
            state_bytes(state),
        )
        refused = orders.update_refused(content, reply)
        orders.synced(self.bundle.adapters)
        with self.spool.database.transaction():
            self.mailbox.answer(order.round, Reply(data))
            self.spool.take(order.round, numbers)
            self.spool.database.know(STATE, kept)
        self.state = state  # from here on the order is done, and nothing may say that it is not
        self.done.refused_updates += refused
        self.done.bytes_up += len(data)
        self.done.bytes_down += len(order.content)
        with suppress(OSError):  # what is not needed goes with the next
            sweep(self.bundle.adapters, [kept])
        return len(samples), len(numbers), len(data)

    def step(self) -> bool:
        """Do what there is to do; whether there was anything."""
        return self.do_order() or self.read_feed() > 0

    def run(self, stop: threading.Event, rounds: int = 0) -> None:
        """Go on until `stop` is set, or so many orders have a reply (0 = any number).

        Raises:
            Damaged: the database is damaged; everything else is said in the log, and tried again.
        """
        look = 0.0
        while not stop.is_set() and not (rounds and self.done.orders >= rounds):
            try:
                if self.do_order():
                    continue
                if time.monotonic() >= look and not self.read_feed():
                    look = time.monotonic() + FEED_PAUSE
            except Damaged:
                raise
            except RunError as err:
                _log.warning("%s", err)
                stop.wait(AGAIN)
            stop.wait(PAUSE)
