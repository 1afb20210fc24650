"""TimedGrid: virtual time in front of any Flower `Grid`; the strategy never knows.

The grid behind it (`LocalGrid`, `FleetGrid`, `flwr run`'s) does the work; this one says who is there and
which answers came in time. `get_node_ids` gives the devices that can be asked now: online, on the
conditions, charged, not at work. A list of TRAIN messages is a round: each task is charged its download, its
work (from the FLOPs in the reply) and its upload, and the clock decides. A device that is away before its
download is through never sees the message. What does not come in time is absent, as in Flower; where late
answers are taken (`late = "take"`, the mode `async`) an answer that will never come is an error reply
NODE_UNAVAILABLE. Other kinds of messages (QUERY, EVALUATE) are the experimenter's and take no time. What
the cloud does with a round's answers passes before the next one begins.

Nobody being there is a round, too: an empty list that follows `get_node_ids` lasts to the deadline.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from flwr.app import Error, Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid

from cdc_flower.fleet.cost.charges import Charges
from cdc_flower.fleet.engines.local_grid import UNAVAILABLE, Around
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.time import clock
from cdc_flower.fleet.time.clock import STATUSES
from cdc_flower.fleet.time.network import down_seconds
from cdc_flower.fleet.time.task_table import TaskTable
from cdc_flower.fleet.time.tasks import Tasks
from cdc_flower.fleet.time.traces import Trace
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.fields import ReplyError, clean
from cdc_flower.wire.messages import REFUSED, message_bytes, trains, with_id
from cdc_flower.wire.reply import Form, Reply, read


class TimedGrid(Around):
    """Virtual time over another grid.

    Args:
        inner: does the work.
        nodes: device -> node id, of devices 0..n-1; one that is absent is never there.
        rules: mode, deadline, conditions.
        charges: what work costs on each of the n devices.
        trace: when each is there.
        wanted: answers that are enough for a round.
        form: what a TRAIN reply holds; one that breaks it is an error reply REFUSED, charged its download.
        cloud: seconds that the cloud takes for so many samples.

    Attributes:
        last: what happened in the last round: hours (virtual time at its end), cloud_seconds (after it),
            online (devices that could have been asked), asked, and how many of each fate.
        host_seconds: that the clock itself took.
    """

    def __init__(
        self,
        inner: Grid,
        nodes: Mapping[int, int],
        rules: FleetConfig,
        charges: Charges,
        trace: Trace,
        wanted: int,
        form: Callable[[], Form],
        cloud: Callable[[int], float] = lambda samples: 0.0,
    ) -> None:
        self.inner, self.rules, self.charges, self.trace, self.wanted = inner, rules, charges, trace, wanted
        self.form, self.cloud = form, cloud
        self.clock = clock.start(charges.devices)
        self.last: dict[str, float] = {}
        self.host_seconds = 0.0
        self._node = dict(nodes)
        self._device = {node: device for device, node in nodes.items()}
        self._there: list[int] | None = None  # who could be asked, when that was asked last
        self._replies: dict[int, Message] = {}  # device -> its answer, on its way
        self._messages: dict[int, Message] = {}  # device -> what it was asked, while that is not settled
        self._table = TaskTable(charges.devices, charges.compression)

    # --- Flower's interface ---------------------------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        """Nodes of the devices that can be asked now, by device; perhaps none."""
        there = clock.candidates(self.clock, self.charges.devices, self.trace, self.rules).tolist()
        self._there = there = [d for d in there if d in self._node]
        return [self._node[d] for d in there]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages on that take no time.

        Raises:
            ValueError: a TRAIN message; a round is one list, for `send_and_receive`.
        """
        messages = list(messages)
        if any(map(trains, messages)):
            raise ValueError("in virtual time the TRAIN messages of a round go by send_and_receive, together")
        return self.inner.push_messages(messages)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Replies that came in time, those of earlier rounds that arrived now, and error replies for what
        will never come where late answers are taken; by device.
        """
        messages = list(messages)
        if any(map(trains, messages)) or (not messages and self._there is not None):
            return self._round(messages, timeout)
        self._there = None
        return self.inner.send_and_receive(messages, timeout=timeout)

    # --- a round --------------------------------------------------------------------------------------------

    def _round(self, messages: list[Message], timeout: float | None) -> list[Message]:
        online = len(self._there) if self._there is not None else 0
        self._there = None
        asked = dict(sorted((self._device[m.metadata.dst_node_id], m) for m in messages))
        device = np.array(list(asked), np.int64)
        began = time.perf_counter()
        down = np.array([message_bytes(m.content) for m in asked.values()], np.float64)
        reached = self._reached(device, down)
        self.host_seconds += time.perf_counter() - began

        answers = self.inner.send_and_receive([asked[d] for d in device[reached].tolist()], timeout=timeout)
        began = time.perf_counter()
        for d in device[~reached].tolist():
            with_id(asked[d], f"unreached-{self.clock.round + 1}-{d}")
        found, said = self._read(asked, answers)
        up = np.array([said[d].bytes if d in said else 0 for d in device.tolist()], np.float64)
        tasks = Tasks(device, down, self._work(device, reached & ~np.isin(device, list(found)), said), up)
        self._replies |= found
        self._messages |= asked
        self.clock, report, seconds = self._played(tasks)
        replies = self._settle(report, online, seconds)
        self.host_seconds += time.perf_counter() - began
        return replies

    def _played(self, tasks: Tasks) -> tuple[clock.State, clock.Report, float]:
        """The round, and the seconds of the cloud after it; whose answers it has does not depend on them."""
        fixed = self.wanted, self.charges.devices, self.trace, self.rules
        after, report = clock.play(self.clock, tasks, *fixed)
        come = (*report.answered.tolist(), *report.late_device.tolist())
        seconds = self.cloud(sum(_uploaded(self._replies.get(d)) for d in come))
        if seconds:
            after, report = clock.play(self.clock, tasks, *fixed, cloud_seconds=seconds)
        return after, report, seconds

    def _reached(self, device: np.ndarray, down: np.ndarray) -> np.ndarray:
        """Whose download is through before the task would be given up: (m,) bool."""
        own = self.charges.devices.rows(device)
        through = self.trace.finish(device, self.clock.now, down_seconds(own, down))
        endless = self.rules.mode == "sync" and self.rules.late == "take"
        return np.isfinite(through) if endless else through <= self.clock.now + self.rules.deadline

    def _read(
        self, asked: Mapping[int, Message], answers: Iterable[Message]
    ) -> tuple[dict[int, Message], dict[int, Reply]]:
        """The first answer of each device that was asked, and what the good ones say. What is kept of the
        others is an error reply with one line: it may lie here for long, and in checkpoints.
        """
        form, found, said = self.form(), {}, {}
        awaited = {m.metadata.message_id: device for device, m in asked.items()}
        for answer in answers:
            device = awaited.pop(answer.metadata.reply_to_message_id, None)
            if device is None:
                continue
            try:
                if answer.has_error():
                    code, reason = answer.error.code, clean(answer.error.reason)
                else:
                    said[device], found[device] = read(answer.content, form), answer
                    continue
            except ReplyError as err:
                code, reason = REFUSED, clean(str(err))
            error = Error(code if 0 <= code < 2**31 else 0, reason)
            found[device] = with_id(
                Message(error, reply_to=asked[device]), f"error-{self.clock.round + 1}-{device}"
            )
        return found, said

    def _work(self, device: np.ndarray, silent: np.ndarray, said: Mapping[int, Reply]) -> np.ndarray:
        """Seconds of work (m,): nothing where the message never came or the device failed, without end where
        the grid behind never gave an answer.
        """
        seconds, devices = np.where(silent, np.inf, 0.0), device.tolist()
        rows = [row for row, d in enumerate(devices) if d in said]
        counts = [Counts.of(said[devices[row]].metrics) for row in rows]
        seconds[rows] = self.charges.seconds(device[rows], counts)
        return seconds

    def _settle(self, report: clock.Report, online: int, cloud_seconds: float) -> list[Message]:
        """What the strategy gets of a round, by device; what is settled is let go."""
        fine = [*report.answered.tolist(), *report.late_device.tolist()]
        at_work = set(self.clock.pending.device.tolist())
        never = dict(zip(report.lost_device.tolist(), report.lost_status.tolist(), strict=True))
        for device, status in zip(report.device.tolist(), report.status.tolist(), strict=True):
            if STATUSES[status] != "in" and device not in at_work:
                never[device] = status
        self._table.enter(report, at_work if self.rules.mode == "async" else set())
        fates = [STATUSES[s] for s in never.values()]
        if self.rules.mode == "sync":
            fates += ["late"] * len(at_work.intersection(report.device.tolist()))
        counted = {"in": len(fine), **{name: fates.count(name) for name in STATUSES[1:]}}
        self.last = {
            "hours": report.end / 3600,
            "cloud_seconds": cloud_seconds,
            "online": online,
            "asked": len(report.device),
            **counted,
        }

        replies = {d: self._replies[d] for d in fine if d in self._replies}
        if self.rules.takes_late:
            replies |= {d: self._unavailable(d, STATUSES[status]) for d, status in never.items()}
        for device in [*fine, *never]:
            self._replies.pop(device, None)
            self._messages.pop(device, None)
        return [replies[d] for d in sorted(replies)]

    def _unavailable(self, device: int, status: str) -> Message:
        reply = Message(Error(UNAVAILABLE, f"device {device}: {status}"), reply_to=self._messages[device])
        return with_id(reply, f"{status}-{self.clock.round}-{device}")

    # --- what happened --------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """One row for each task so far, by round and device; seconds are virtual. A task that is still under
        way counts as late.
        """
        return self._table.frame(self.clock.pending)

    def digest(self) -> str:
        """sha256 hex over all rows."""
        return self._table.digest()

    # --- checkpoint -----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The clock, what is on its way, and the rows so far: a flat dict of arrays, bytes and numbers."""
        packed: dict[str, Any] = {f"clock_{name}": value for name, value in self.clock.state().items()}
        for kind, messages in (("reply", self._replies), ("message", self._messages)):
            for device, message in messages.items():
                packed[f"{kind}_{device}"] = message_to_proto(message).SerializeToString()
        return packed | {"rows": self._table.dumped(), "last": json.dumps(self.last)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state()` said."""
        prefix = "clock_"
        self.clock = clock.State.from_state(
            {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        )
        for kind, messages in (("reply_", self._replies), ("message_", self._messages)):
            messages.clear()
            for name, value in state.items():
                if name.startswith(kind):
                    proto = ProtoMessage.FromString(bytes(value))
                    messages[int(name.removeprefix(kind))] = message_from_proto(proto)
        self._table.load(state["rows"])
        self.last = json.loads(str(state["last"]))


def _uploaded(reply: Message | None) -> int:
    """The samples that an answer of good form says it has; a claim, but within its bound."""
    if reply is None or not reply.has_content():
        return 0
    said: Any = reply.content.metric_records[keys.METRICS].get(keys.UPLOADED, 0)
    return said
