"""What every strategy needs and Flower's do not have: devices by partition, ordered replies, exact bytes.

Whom a round asks and whose reply is whose is in `devices`. Every reply is read here, in one place, by the
form that its method declares (`cdc_flower.wire.reply`); a method sees no other. One that breaks it, or that
the method refuses, is a row "refused" with its reason. What never came is counted, and too few answers end
the run. Query and evaluation messages are the experimenter's own and are not in the ledger.

In virtual time the cohort is drawn from the nodes that are connected, and a round may be empty. Where late
answers are taken, a device stays asked until its answer or an error comes, in the row of that round."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from logging import WARNING
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from cdc_flower.config import Config
from cdc_flower.fleet.cost.roofline import Shapes
from cdc_flower.fleet.cost.work import flops
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.ledger import Ledger, Row
from cdc_flower.wire import keys
from cdc_flower.wire.fields import Field, ReplyError
from cdc_flower.wire.messages import message_bytes, with_id
from cdc_flower.wire.reply import Form, Reply
from strategies.answers import CHARACTERS, MISSING, Answer, Taken, answer, counted, evaluated, train_form
from strategies.devices import FleetError, cohort, discover, drawn, matched, wanted
from strategies.doorkeeper import Doorkeeper

T = TypeVar("T")
LEEWAY = 16  # times what a device computes at most, that it may say
Judge = Callable[[int, int, Sequence[str]], Mapping[str, tuple[float, int]]]
"""Device, round, its answers in order -> domain -> (correct, answered)."""


@dataclass(frozen=True)
class Asked:
    """What is kept of a TRAIN message: in which round it was sent, and how many bytes its content had."""

    round: int
    downlink_bytes: int


@dataclass
class Fleet:
    """The devices as a strategy sees them: who was asked, what went down and came up, in which order.

    Attributes:
        judge: which answers of a device are right, by domain; the simulator knows, a deployment does not.
        shapes: of the student, to make FLOPs of what devices count.
        receipts: whether an order says in which round its device's reply was `taken` last, and `refused`.
        counted: whether train messages are traffic of the method (those of `static` only drive the
            simulation).
        rules: whom to ask in virtual time.
        samples: questions that a device answers in a round, at most.
        longest: characters of an answer, at most.
        positions: of a complete sample and its answer, at most; 0 = not known.
        nodes: device -> node id, found at the first round where not given; others are always missing.
        taken: device -> the last round in which its reply was used; without an entry none was.
        refused: device -> the last round in which its reply came and could not be used.
        prequential: round -> domain -> (correct, answered), from the evaluate replies.
        seconds: stage -> host seconds.
        door: drops samples before the method sees them; None = nobody does.
    """

    devices: int
    seed: int
    share: float
    min_devices: int
    node_timeout: float = 60.0
    counted: bool = True
    receipts: bool = False
    judge: Judge = field(default=lambda device, round, answers: {})
    shapes: Shapes | None = None
    rules: FleetConfig = field(default_factory=FleetConfig)
    samples: int = 1024
    longest: int = 4096
    positions: int = 0
    nodes: dict[int, int] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    prequential: dict[int, dict[str, tuple[float, int]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    door: Doorkeeper | None = None
    _asked: dict[int, Asked] = field(default_factory=dict)  # by device, the last time
    _open: dict[int, Message] = field(default_factory=dict)  # by device, what no answer has come to yet
    _unknown: list[int] = field(default_factory=list)  # devices of this round's cohort without a node
    _worked: dict[int, int] = field(default_factory=dict)  # device -> round whose answers are to be asked for
    _counts: dict[int, Message] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)  # device -> values that it is asked to show

    @classmethod
    def of(cls, config: Config, *, counted: bool = True) -> Fleet:
        """The fleet that a config describes."""
        run, virtual = config.run, config.fleet.mode != "off"
        least, timeout = 0 if virtual else run.min_devices, min(60.0, run.round_timeout)
        longest = CHARACTERS * config.pair.max_answer_tokens
        return cls(
            run.devices,
            run.seed,
            run.cohort,
            least,
            timeout,
            counted,
            run.receipts,
            rules=config.fleet,
            samples=run.samples_per_round,
            longest=longest,
        )

    def ask(self, grid: Grid, round: int, kind: str, content: Callable[[int], RecordDict]) -> list[Message]:
        """Messages to the round's cohort; `content(device)` makes each one's records."""
        if not self.nodes:
            self.nodes = discover(grid, self.devices, self.node_timeout, self.min_devices)
        if not self.rules.takes_late:
            self._asked, self._open = {}, {}
        messages, now = {}, self._cohort(grid, round)
        self._unknown = [d for d in now if d not in self.nodes]
        self._asked |= {d: Asked(round, 0) for d in self._unknown}
        for d in (d for d in now if d in self.nodes):
            records = self._with_receipt(d, content(d))
            messages[d] = Message(records, dst_node_id=self.nodes[d], message_type=kind, group_id=str(round))
            self._asked[d] = Asked(round, message_bytes(records) if self.counted else 0)
        self._open |= messages
        return list(messages.values())

    def _with_receipt(self, device: int, records: RecordDict) -> RecordDict:
        """An order that also says what the device need not keep any longer."""
        if self.receipts:
            said = {keys.TAKEN: self.taken.get(device, 0), keys.REFUSED: self.refused.get(device, 0)}
            records[keys.CONFIG] = ConfigRecord({**records.config_records[keys.CONFIG], **said})
        return records

    def _cohort(self, grid: Grid, round: int) -> list[int]:
        rules = self.rules
        if rules.mode == "off":
            return cohort(self.seed, round, self.devices, self.share)
        connected = set(grid.get_node_ids())
        free = [d for d, node in self.nodes.items() if node in connected and d not in self._open]
        if rules.mode == "async":
            return drawn(self.seed, round, free, rules.in_flight - len(self._open))
        return drawn(self.seed, round, free, rules.to_ask(wanted(self.devices, self.share)))

    def computed(self, reads: int) -> dict[str, Field]:
        """Bounds of the counts of a device that reads a sample so many times in a round, for `Method.form`.

        Loose: `LEEWAY` times what passes over complete samples can come to, because true answers may be
        longer than those of the model.
        """
        return counted(LEEWAY * reads * self.positions) if self.positions else {}

    def receive(
        self, round: int, replies: Iterable[Message], own: Form, take: Callable[[int, Reply], Taken[T]]
    ) -> dict[int, T]:
        """Read what came, write the rows of this round's devices, and hand on what can be used, by device.

        Where late answers are taken, the rows are of those whose answer has come, whenever they were asked.

        Args:
            round: of now.
            replies: as they came.
            own: form of the method's replies.
            take: from a device and its good reply to what the method makes of it; raises `FrameError` where
                the reply cannot be used.

        Raises:
            FleetError: fewer than `min_devices` answers can be used.
        """
        found, form, settled = {}, train_form(own), self._settled(replies)
        reads = {d: answer(message, form, partial(take, d)) for d, message in settled.items()}
        if self.door is not None:
            reads = self.door.admitted(round, reads)
        for device, read in reads.items():
            self._enter(device, read)
            if read.taken is not None:
                found[device] = read.taken.value
                self.taken[device] = self._asked[device].round
                continue
            if read.status == "refused":
                self.refused[device] = self._asked[device].round
            # In virtual time, and of who was never there, that is nothing new.
            if read.status != "missing" or (self.rules.mode == "off" and device not in self._unknown):
                why = read.reason or "no answer"
                log(WARNING, "round %s: device %s: %s: %s", round, device, read.status, why)
        self.require(round, len(found), len(settled))
        return found

    def _settled(self, replies: Iterable[Message]) -> dict[int, Message | None]:
        """The answers to what is open, by device; of those alone that have come where late ones are taken."""
        late = self.rules.takes_late
        found = {d: m for d, m in matched(self._open, replies).items() if m is not None or not late}
        self._open = {d: message for d, message in self._open.items() if d not in found}
        self._worked = {d: self._asked[d].round for d in found}
        return dict(sorted((found | dict.fromkeys(self._unknown)).items()))

    def round_of(self, device: int) -> int:
        """The round in which a device was asked last."""
        return self._asked[device].round

    def _enter(self, device: int, read: Answer[Any]) -> None:
        """Write a device's row into the ledger."""
        asked = self._asked[device]
        forward, backward = flops(self.shapes, read.computed) if self.shapes else (0, 0)
        self.ledger.add(
            Row(
                asked.round,
                device,
                read.status,
                uplink_bytes=read.reply.bytes if read.reply is not None and self.counted else 0,
                downlink_bytes=asked.downlink_bytes,
                uploaded_samples=read.taken.samples if read.taken is not None else 0,
                tokens_sent=read.taken.tokens if read.taken is not None else 0,
                flops_forward=forward,
                flops_backward=backward,
                host_seconds=read.seconds,
                reason=read.reason,
            )
        )
        self.seconds["devices"] += read.seconds

    def close(self) -> None:
        """Enter what is still awaited at the end of a run as missing."""
        for device in sorted(self._open):
            self._enter(device, MISSING)
        self._open = {}

    def require(self, round: int, answered: int, asked: int) -> None:
        """Stop the run when fewer than `min_devices` answered.

        Raises:
            FleetError: too few.
        """
        if answered < self.min_devices:
            raise FleetError(
                f"round {round}: {answered} of {asked} devices answered; "
                f"setting 'run.min-devices' = {self.min_devices}"
            )

    def ask_answers(self, grid: Grid, round: int, held: Mapping[int, int] | None = None) -> list[Message]:
        """EVALUATE messages to those that were to answer in this round: what did you answer in that round?

        Args:
            held: device -> of how many values that it keeps it is to show the first, too.
        """
        self._held = dict(held or {})
        self._counts = {
            d: Message(
                RecordDict({keys.CONFIG: ConfigRecord({keys.ROUND: asked_in, **self._more(d)})}),
                dst_node_id=self.nodes[d],
                message_type=MessageType.EVALUATE,
                group_id=str(round),
            )
            for d, asked_in in self._worked.items()
        }
        return list(self._counts.values())

    def _more(self, device: int) -> dict[str, int]:
        return {keys.HELD: self._held[device]} if device in self._held else {}

    def add_answers(
        self, round: int, replies: Iterable[Message], take: Callable[[int, np.ndarray], None] | None = None
    ) -> MetricRecord:
        """Judge the answers and sum over devices; domain -> [correct, answered].

        Args:
            take: is given each device that showed what it keeps, and that: (held,) float32.
        """
        sums: dict[str, tuple[float, int]] = {}
        for device, message in matched(self._counts, replies).items():
            if message is None or not message.has_content():
                continue
            asked_in = self._worked[device]
            try:
                read = evaluated(message, asked_in, self.samples, self.longest, self._held.get(device, 0))
            except ReplyError as err:
                log(WARNING, "round %s: answers of device %s are not counted: %s", round, device, err)
                continue
            if take is not None and read.array is not None:
                take(device, read.array)
            for domain, (right, total) in self.judge(device, asked_in, read.config[keys.ANSWERS]).items():
                have = sums.get(domain, (0, 0))
                sums[domain] = have[0] + right, have[1] + total
        self.prequential[round] = dict(sorted(sums.items()))
        return MetricRecord({d: [*map(float, c)] for d, c in self.prequential[round].items()})

    def state(self) -> dict[str, Any]:
        """The ledger, the counts and the seconds so far, and whose answer is awaited."""
        rows = io.BytesIO()
        self.ledger.frame().to_parquet(rows, index=False)
        counts = {str(r): {d: list(c) for d, c in by.items()} for r, by in self.prequential.items()}
        receipts = {"taken": self.taken, "refused": self.refused} if self.receipts else {}
        return {
            **{name: json.dumps(rounds) for name, rounds in receipts.items()},
            "ledger": rows.getvalue(),
            "prequential": json.dumps(counts),
            "seconds": json.dumps(self.seconds),
            "open": json.dumps(
                {d: [*astuple(self._asked[d]), m.metadata.message_id] for d, m in self._open.items()}
            ),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken."""
        self.ledger = Ledger.from_frame(pd.read_parquet(io.BytesIO(state["ledger"])))
        self.prequential = {
            int(r): {d: (right, total) for d, (right, total) in by.items()}
            for r, by in json.loads(state["prequential"]).items()
        }
        self.seconds = defaultdict(float, json.loads(state["seconds"]))
        self.taken, self.refused = (
            {int(d): round for d, round in json.loads(state.get(name, "{}")).items()}
            for name in ("taken", "refused")
        )
        self._asked, self._open = {}, {}
        for device, (round, size, name) in json.loads(state["open"]).items():
            message = Message(RecordDict(), dst_node_id=0, message_type=MessageType.TRAIN)
            self._asked[int(device)], self._open[int(device)] = Asked(round, size), with_id(message, name)
