"""Which of the connected nodes is which device, round after round: nodes come and go.

Where SuperNodes authenticate, Flower binds a node id to the node's key, and the cloud's list of devices says
whose node id it is; a number that is another's is refused. Without authentication a number belongs to the
node that claims it first, for as long as that node is connected. A node is asked once who it is, and again
only when it did not answer. With keys that holds while it is away, and outlives the process: a message costs
a device some seconds, and a cloud that was killed does not ask again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from cdc_flower.checkpoint import Part
from cdc_flower.config import ConfigError
from cdc_flower.wire import keys, reply
from cdc_flower.wire.fields import Number, ReplyError, clean
from cdc_flower.wire.reply import Form
from strategies.devices import answered
from strategies.served import devices
from strategies.served.devices import Device

WAIT = 30.0  # s, for a node to say who it is
AGAIN = 120.0  # s, until a node that did not say is asked again
FORM = Form(metrics={keys.DEVICE: Number(int, 0, devices.MOST - 1)})


@dataclass
class Nodes:
    """Who is there.

    Args:
        cloud: its folder; `devices.json` in it is read again before each round.
        authenticated: whether a node id is a key's.

    Attributes:
        listed: devices of that file.
        proved: node id -> the device that it is.
        refused: connected node -> why it is no device.
        connected: device -> node id, of those that are there now.
    """

    cloud: Path
    authenticated: bool
    clock: Callable[[], float] = time.monotonic
    listed: dict[int, Device] = field(default_factory=dict)
    proved: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    connected: dict[int, int] = field(default_factory=dict)
    _later: dict[int, float] = field(default_factory=dict)  # node that said nothing -> when to ask again
    _claims: dict[int, int] = field(default_factory=dict)  # refused node -> the device that it said it is

    @property
    def devices(self) -> int:
        """How many numbers there may be: one above the highest that is known."""
        return 1 + max([*self.listed, *self.proved.values()], default=-1)

    def look(self, grid: Grid) -> dict[int, int]:
        """Device -> node id of those that are connected now, sorted; new nodes are asked who they are."""
        self._read()
        there = set(grid.get_node_ids())
        stay = self.proved if self.authenticated else {n: d for n, d in self.proved.items() if n in there}
        self.proved = {n: d for n, d in stay.items() if not self._wrong(n, d)}
        self.refused = {n: why for n, why in self.refused.items() if n in there}
        self._look_again()
        self._later = {n: when for n, when in self._later.items() if n in there and when > self.clock()}
        self._ask(grid, sorted(there - set(self.proved) - set(self.refused) - set(self._later)))
        self.connected = dict(sorted((d, n) for n, d in self.proved.items() if n in there))
        return self.connected

    def state(self) -> Part:
        """Who said which device it is; of nodes without keys nothing, for they have other ids each time."""
        return {"proved": json.dumps(self.proved if self.authenticated else {})}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state()` was taken; {} = by a version that did not keep it."""
        self.proved = {int(n): int(d) for n, d in json.loads(state.get("proved", "{}")).items()}

    def _read(self) -> None:
        """Take what the file says now; of one that cannot be read, what it said last."""
        try:
            self.listed = devices.read(self.cloud)
        except ConfigError as err:
            log(
                WARNING,
                "%s cannot be read, the devices are those of before: %s",
                devices.FILE,
                clean(str(err)),
            )

    def _look_again(self) -> None:
        """Take refused nodes whose claim the list of devices bears out by now: a device may come in between
        its key's registration and the writing of the list.
        """
        self._claims = {n: d for n, d in self._claims.items() if n in self.refused}
        for node, device in list(self._claims.items()) if self.authenticated else ():
            if not self._wrong(node, device):
                del self._claims[node], self.refused[node]
                self._take(node, device)

    def _take(self, node: int, device: int) -> None:
        self.proved[node] = device
        log(INFO, "device %s is connected, as node %s", device, node)

    def _ask(self, grid: Grid, new: Iterable[int]) -> None:
        """Ask nodes who they are."""
        messages = {n: _who(n) for n in new}
        if not messages:
            return
        silent = set(messages)
        for node, said in answered(messages, grid.send_and_receive(list(messages.values()), timeout=WAIT)):
            if said.has_error():
                continue
            silent.discard(node)
            try:
                device = reply.read(said.content, FORM).metrics[keys.DEVICE]
                if wrong := self._wrong(node, device):
                    self._claims[node] = device
                    raise ReplyError(wrong)
            except ReplyError as err:
                self.refused[node] = clean(str(err))
                log(WARNING, "node %s is no device of this cloud: %s", node, err)
                continue
            self._take(node, device)
        for node in silent:
            self._later[node] = self.clock() + AGAIN
            log(WARNING, "node %s did not say which device it is; it is asked again in %g s", node, AGAIN)

    def _wrong(self, node: int, device: int) -> str:
        """Why a node is not the device that it claims to be; "" where it is."""
        own = self.listed.get(device)
        if own is not None and own.status == "revoked":
            return f"it claims to be device {device}, which is revoked"
        if self.authenticated:
            if own is None:
                return f"it claims to be device {device}, which is not in the list of devices"
            if own.node_id != node:
                return f"it claims to be device {device}, which is another node"
            return ""
        first = next((n for n, d in self.proved.items() if d == device), node)
        return "" if first == node else f"it claims to be device {device}, which node {first} was first"


def _who(node: int) -> Message:
    content: Any = RecordDict({keys.CONFIG: ConfigRecord()})
    return Message(content, dst_node_id=node, message_type=MessageType.QUERY, group_id="0")
