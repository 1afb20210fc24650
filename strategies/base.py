"""What every strategy needs and Flower's do not have: devices by partition, seeded cohorts, ordered replies,
exact bytes.

Flower's node ids are random in each run and its replies come in any order, so a cohort drawn from node ids or
a sum in the order of arrival is never the same twice. Here one QUERY round says which node is which device;
cohorts are drawn from a seeded generator over devices, and replies are handed on sorted by device. What
failed or never came is counted, and too few answers end the run (Flower's FedAvg would go on with the old
weights and call the run completed). Query and evaluation messages are the experimenter's own and are not in
the ledger."""

from __future__ import annotations

import io
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from cdc_flower.config import Config
from cdc_flower.fleet.grid import message_bytes
from cdc_flower.ledger import Ledger, Row
from cdc_flower.wire import keys

WORKER_DIED = (
    0  # error code of a reply whose Ray actor is gone; the pool hands it to healthy devices afterwards
)


class FleetError(RuntimeError):
    """Too few devices to go on; the message says how many were there and how many are needed."""


def wait_for_nodes(grid: Grid, devices: int, timeout: float) -> list[int]:
    """Node ids, as soon as there are `devices` of them.

    Raises:
        FleetError: not enough of them after `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while len(nodes := list(grid.get_node_ids())) < devices:
        if time.monotonic() > end:
            raise FleetError(
                f"{len(nodes)} nodes connected within {timeout:g} s, setting 'devices' = {devices} needs "
                f"{devices}; with `flwr run` set --federation-config num-supernodes={devices}"
            )
        time.sleep(0.2)
    return nodes


def discover(grid: Grid, devices: int, timeout: float) -> dict[int, int]:
    """Device -> node id, by one QUERY round.

    Raises:
        FleetError: a device did not answer.
    """
    nodes = wait_for_nodes(grid, devices, timeout)
    messages = [
        Message(
            RecordDict({keys.CONFIG: ConfigRecord()}),
            dst_node_id=n,
            message_type=MessageType.QUERY,
            group_id="0",
        )
        for n in nodes
    ]
    found: dict[int, int] = {}
    for reply in grid.send_and_receive(messages, timeout=timeout):
        if reply.has_content():
            found[int(reply.content.metric_records[keys.METRICS][keys.DEVICE])] = reply.metadata.src_node_id
    missing = [d for d in range(devices) if d not in found]
    if missing:
        raise FleetError(
            f"no node answered for device {', '.join(map(str, missing))}; {len(nodes)} nodes are "
            f"connected, setting 'devices' = {devices} needs partition-id 0..{devices - 1}"
        )
    return {d: found[d] for d in range(devices)}


def cohort(seed: int, round: int, devices: int, share: float) -> list[int]:
    """The devices asked in a round, sorted: `share` of them, at least one, the same for the same seed and
    round.
    """
    return sorted(
        random.Random(f"{seed}-{round}").sample(range(devices), max(1, int(devices * share + 1e-9)))
    )


def matched(messages: Mapping[int, Message], replies: Iterable[Message]) -> dict[int, Message | None]:
    """Device -> its reply (content or error), None for one that never came; sorted by device.

    By message ids, because an error reply made by Flower's server carries the server's node id and not the
    device's.

    Raises:
        FleetError: a worker process died, after which no reply of the run can be trusted.
    """
    device_of = {m.metadata.message_id: device for device, m in messages.items()}
    found: dict[int, Message | None] = dict.fromkeys(sorted(messages))
    for reply in replies:
        if reply.has_error() and reply.error.code == WORKER_DIED:
            raise FleetError(f"a worker process of the simulation died: {str(reply.error.reason)[-300:]}")
        device = device_of.get(reply.metadata.reply_to_message_id)
        if device is not None:
            found[device] = reply
    return found


def _number(metrics: MetricRecord, name: str) -> float:
    """A count that a device reports; 0 for one that is absent, negative or no number."""
    value = metrics.get(name, 0)
    return max(0, value) if isinstance(value, int | float) and math.isfinite(value) else 0


@dataclass
class Fleet:
    """The devices as a strategy sees them: who was asked, what went down and came up, in which order.

    Attributes: counted: whether train messages are traffic of the method (those of `static` only drive the
        simulation). prequential: round -> domain -> (correct, answered), from the evaluate replies. seconds:
        stage -> host seconds."""

    devices: int
    seed: int
    share: float
    min_devices: int
    node_timeout: float = 60.0
    counted: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    prequential: dict[int, dict[str, tuple[int, int]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _nodes: dict[int, int] = field(default_factory=dict)
    _sent: dict[int, Message] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, *, counted: bool = True) -> Fleet:
        run = config.run
        return cls(run.devices, run.seed, run.cohort, run.min_devices, min(60.0, run.round_timeout), counted)

    def ask(self, grid: Grid, round: int, kind: str, content: Callable[[int], RecordDict]) -> list[Message]:
        """Messages to the round's cohort; `content(device)` makes each one's records."""
        if not self._nodes:
            self._nodes = discover(grid, self.devices, self.node_timeout)
        self._sent = {
            d: Message(content(d), dst_node_id=self._nodes[d], message_type=kind, group_id=str(round))
            for d in cohort(self.seed, round, self.devices, self.share)
        }
        return list(self._sent.values())

    def answers(self, replies: Iterable[Message]) -> dict[int, Message | None]:
        """See `matched`; of the messages last asked."""
        return matched(self._sent, replies)

    def enter(self, round: int, device: int, reply: Message | None, refused: bool = False) -> bool:
        """Write a device's row into the ledger; True when its answer can be used."""
        good = reply is not None and reply.has_content() and not refused
        status = "ok" if good else "missing" if reply is None else "failed"
        content = reply.content if reply is not None and reply.has_content() else RecordDict()
        metrics = content.metric_records.get(keys.METRICS, MetricRecord())
        seconds = _number(metrics, keys.SECONDS)
        self.ledger.add(
            Row(
                round,
                device,
                status,
                uplink_bytes=message_bytes(content) if self.counted else 0,
                downlink_bytes=message_bytes(self._sent[device].content) if self.counted else 0,
                uploaded_samples=int(_number(metrics, keys.UPLOADED)),
                tokens_sent=int(_number(metrics, keys.TOKENS)),
                flops_forward=int(_number(metrics, keys.FORWARD)),
                flops_backward=int(_number(metrics, keys.BACKWARD)),
                host_seconds=seconds,
            )
        )
        self.seconds["devices"] += seconds
        return good

    def require(self, round: int, answered: int) -> None:
        """Stop the run when fewer than `min_devices` answered.

        Raises:
            FleetError: too few.
        """
        if answered < self.min_devices:
            raise FleetError(
                f"round {round}: {answered} of {len(self._sent)} devices answered; setting 'min-devices' "
                f"= {self.min_devices}"
            )

    def ask_counts(self, grid: Grid, round: int) -> list[Message]:
        """Evaluate messages for the round's prequential counts."""
        return self.ask(
            grid,
            round,
            MessageType.EVALUATE,
            lambda _: RecordDict({keys.CONFIG: ConfigRecord({keys.ROUND: round})}),
        )

    def add_counts(self, round: int, replies: Iterable[Message]) -> MetricRecord:
        """Sum the counts over devices; domain -> [correct, answered]."""
        sums: dict[str, list[int]] = {}
        for reply in self.answers(replies).values():
            if reply is None or not reply.has_content():
                continue
            for domain, (right, total) in reply.content.metric_records.get(
                keys.METRICS, MetricRecord()
            ).items():
                have = sums.setdefault(domain, [0, 0])
                sums[domain] = [have[0] + right, have[1] + total]
        self.prequential[round] = {d: (r, t) for d, (r, t) in sorted(sums.items())}
        return MetricRecord({d: list(c) for d, c in self.prequential[round].items()})

    def state(self) -> dict[str, Any]:
        """The ledger, the counts and the seconds so far."""
        rows = io.BytesIO()
        self.ledger.frame().to_parquet(rows, index=False)
        counts = {str(r): {d: list(c) for d, c in by.items()} for r, by in self.prequential.items()}
        return {
            "ledger": rows.getvalue(),
            "prequential": json.dumps(counts),
            "seconds": json.dumps(self.seconds),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken; nodes are looked for again."""
        self.ledger = Ledger.from_frame(pd.read_parquet(io.BytesIO(state["ledger"])))
        self.prequential = {
            int(r): {d: (right, total) for d, (right, total) in by.items()}
            for r, by in json.loads(state["prequential"]).items()
        }
        self.seconds = defaultdict(float, json.loads(state["seconds"]))
        self._nodes, self._sent = {}, {}
