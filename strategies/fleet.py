"""What every strategy needs and Flower's do not have: devices by partition, seeded cohorts, ordered replies,
exact bytes.

Whom a round asks and whose reply is whose is in `devices`. What failed or never came is counted, and too few
answers end the run (Flower's FedAvg would go on with the old weights and call the run completed). Query and
evaluation messages are the experimenter's own and are not in the ledger.

In virtual time (`fleet.mode` other than "off") the cohort is drawn from the nodes that are connected, with
over-selection, and a round in which nobody answers is an empty round, not the end. Where late answers are
taken, a device stays asked until its answer or an error comes, and its row stands in the round in which it
was asked."""

from __future__ import annotations

import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from logging import WARNING
from typing import Any

import pandas as pd
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from cdc_flower.config import Config
from cdc_flower.fleet.cost.roofline import Shapes
from cdc_flower.fleet.cost.work import flops
from cdc_flower.fleet.engines.local_grid import UNAVAILABLE
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.ledger import Ledger, Row
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.messages import message_bytes, with_id
from strategies.devices import FleetError, cohort, discover, drawn, matched, wanted


def _gone(reply: Message | None) -> bool:
    """Whether no answer came, or one that says that none will."""
    return reply is None or (reply.has_error() and reply.error.code == UNAVAILABLE)


def _reason(reply: Message | None) -> str:
    return "no answer" if reply is None else str(reply.error.reason)[-300:]


def _number(metrics: MetricRecord, name: str) -> float:
    """A count that a device reports; 0 for one that is absent, negative or no number."""
    value = metrics.get(name, 0)
    return max(0, value) if isinstance(value, int | float) and math.isfinite(value) else 0


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
        counted: whether train messages are traffic of the method (those of `static` only drive the
            simulation).
        rules: whom to ask in virtual time.
        nodes: device -> node id, found at the first round where not given.
        prequential: round -> domain -> (correct, answered), from the evaluate replies.
        seconds: stage -> host seconds.
    """

    devices: int
    seed: int
    share: float
    min_devices: int
    node_timeout: float = 60.0
    counted: bool = True
    judge: Judge = field(default=lambda device, round, answers: {})
    shapes: Shapes | None = None
    rules: FleetConfig = field(default_factory=FleetConfig)
    nodes: dict[int, int] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    prequential: dict[int, dict[str, tuple[float, int]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _asked: dict[int, Asked] = field(default_factory=dict)  # by device, the last time
    _open: dict[int, Message] = field(default_factory=dict)  # by device, what no answer has come to yet
    _worked: dict[int, int] = field(default_factory=dict)  # device -> round whose counts are to be asked for
    _counts: dict[int, Message] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, *, counted: bool = True) -> Fleet:
        """The fleet that a config describes."""
        run, virtual = config.run, config.fleet.mode != "off"
        least, timeout = 0 if virtual else run.min_devices, min(60.0, run.round_timeout)
        return cls(run.devices, run.seed, run.cohort, least, timeout, counted, rules=config.fleet)

    def ask(self, grid: Grid, round: int, kind: str, content: Callable[[int], RecordDict]) -> list[Message]:
        """Messages to the round's cohort; `content(device)` makes each one's records."""
        if not self.nodes:
            self.nodes = discover(grid, self.devices, self.node_timeout)
        if not self.rules.takes_late:
            self._asked, self._open = {}, {}
        messages = {}
        for d in self._cohort(grid, round):
            records = content(d)
            messages[d] = Message(records, dst_node_id=self.nodes[d], message_type=kind, group_id=str(round))
            self._asked[d] = Asked(round, message_bytes(records) if self.counted else 0)
        self._open |= messages
        return list(messages.values())

    def _cohort(self, grid: Grid, round: int) -> list[int]:
        rules = self.rules
        if rules.mode == "off":
            return cohort(self.seed, round, self.devices, self.share)
        connected = set(grid.get_node_ids())
        free = [d for d, node in self.nodes.items() if node in connected and d not in self._open]
        if rules.mode == "async":
            return drawn(self.seed, round, free, rules.in_flight - len(self._open))
        return drawn(self.seed, round, free, rules.to_ask(wanted(self.devices, self.share)))

    def answers(self, replies: Iterable[Message]) -> dict[int, Message | None]:
        """See `matched`: of the devices whose answer is awaited. Where late answers are taken, of those alone
        that have come, whenever they were asked.
        """
        all_of_them, late = matched(self._open, replies), self.rules.takes_late
        found = {d: reply for d, reply in all_of_them.items() if reply is not None or not late}
        self._open = {d: message for d, message in self._open.items() if d not in found}
        self._worked = {d: self._asked[d].round for d in found}
        return found

    def round_of(self, device: int) -> int:
        """The round in which a device was asked last."""
        return self._asked[device].round

    def enter(self, device: int, reply: Message | None, refused: bool = False) -> bool:
        """Write a device's row into the ledger; True when its answer can be used."""
        asked = self._asked[device]
        good = reply is not None and reply.has_content() and not refused
        content = reply.content if reply is not None and reply.has_content() else RecordDict()
        metrics = content.metric_records.get(keys.METRICS, MetricRecord())
        seconds = _number(metrics, keys.SECONDS)
        forward, backward = flops(self.shapes, Counts.of(metrics)) if self.shapes else (0, 0)
        self.ledger.add(
            Row(
                asked.round,
                device,
                "ok" if good else "missing" if _gone(reply) else "failed",
                uplink_bytes=message_bytes(content) if self.counted else 0,
                downlink_bytes=asked.downlink_bytes,
                uploaded_samples=int(_number(metrics, keys.UPLOADED)),
                tokens_sent=int(_number(metrics, keys.TOKENS)),
                flops_forward=forward,
                flops_backward=backward,
                host_seconds=seconds,
            )
        )
        self.seconds["devices"] += seconds
        return good

    def warn(self, round: int, device: int, reply: Message | None, problem: str = "") -> None:
        """Say why a device's answer cannot be used. In virtual time one that does not come is nothing new."""
        if problem or self.rules.mode == "off" or not _gone(reply):
            log(WARNING, "round %s: device %s: %s", round, device, problem or _reason(reply))

    def close(self) -> None:
        """Enter what is still awaited at the end of a run as missing."""
        for device in sorted(self._open):
            self.enter(device, None)
        self._open = {}

    def require(self, round: int, answered: int) -> None:
        """Stop the run when fewer than `min_devices` answered.

        Raises:
            FleetError: too few.
        """
        if answered < self.min_devices:
            raise FleetError(
                f"round {round}: {answered} of {len(self._worked)} devices answered; "
                f"setting 'run.min-devices' = {self.min_devices}"
            )

    def ask_answers(self, grid: Grid, round: int) -> list[Message]:
        """EVALUATE messages to those that were to answer in this round: what did you answer in that round?"""
        self._counts = {
            d: Message(
                RecordDict({keys.CONFIG: ConfigRecord({keys.ROUND: asked_in})}),
                dst_node_id=self.nodes[d],
                message_type=MessageType.EVALUATE,
                group_id=str(round),
            )
            for d, asked_in in self._worked.items()
        }
        return list(self._counts.values())

    def add_answers(self, round: int, replies: Iterable[Message]) -> MetricRecord:
        """Judge the answers and sum over devices; domain -> [correct, answered]."""
        sums: dict[str, tuple[float, int]] = {}
        for device, reply in matched(self._counts, replies).items():
            if reply is None or not reply.has_content():
                continue
            said: Any = reply.content.config_records.get(keys.CONFIG, ConfigRecord()).get(keys.ANSWERS)
            if not isinstance(said, list):
                continue
            for domain, (right, total) in self.judge(device, self._worked[device], said).items():
                have = sums.get(domain, (0, 0))
                sums[domain] = have[0] + right, have[1] + total
        self.prequential[round] = dict(sorted(sums.items()))
        return MetricRecord({d: list(c) for d, c in self.prequential[round].items()})

    def state(self) -> dict[str, Any]:
        """The ledger, the counts and the seconds so far, and whose answer is awaited."""
        rows = io.BytesIO()
        self.ledger.frame().to_parquet(rows, index=False)
        counts = {str(r): {d: list(c) for d, c in by.items()} for r, by in self.prequential.items()}
        return {
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
        self._asked, self._open = {}, {}
        for device, (round, size, name) in json.loads(state["open"]).items():
            message = Message(RecordDict(), dst_node_id=0, message_type=MessageType.TRAIN)
            self._asked[int(device)], self._open[int(device)] = Asked(round, size), with_id(message, name)
