"""LocalGrid: Flower's public `Grid` inside this process, so that an unchanged ServerApp drives an unchanged
ClientApp.

Stock simulation costs 8 to 20 ms a device-task and 9 s of start; here a task costs what the client costs.
Used for tests, for debugging and on small machines, where all devices share one resident model. Kept from the
real engines: node ids are not partition ids, every node has a `Context` whose state survives rounds, a client
that raises becomes an error reply (code 2) whose changes of state are dropped, and nothing a client does to a
record reaches the sender. Not kept: tasks run one after another, and a running task cannot be cut short
(`timeout` is looked at between tasks). Private names of Flower used: `TaskIdentity`."""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from cdc_flower.wire import keys
from cdc_flower.wire.messages import (
    Client,
    attempt,
    copied,
    failed,
    over_the_wire,
    state_bytes,
    state_of,
    with_id,
)

UNAVAILABLE = 5  # Flower's ErrorCode.NODE_UNAVAILABLE
SERVER_NODE = 1  # Flower's SUPERLINK_NODE_ID


def node_id(device: int) -> int:
    """The node id of a device: the same in every run, and unlike the device's number."""
    return int.from_bytes(hashlib.sha256(f"device {device}".encode()).digest()[:8], "big") >> 1


def node_config(device: int, devices: int) -> dict[str, Any]:
    """What a device of our grids is told: which it is, of how many, and that all keep adapters in one
    folder, because the server sees all states and removes what nobody needs.
    """
    return {keys.DEVICE: device, "num-partitions": devices, keys.ADAPTERS: keys.SHARED}


def new_ids() -> Iterator[str]:
    """Message ids of a grid, unlike those of every other: a resumed run may wait for answers of an earlier
    one.
    """
    name = uuid.uuid4().hex
    return (f"{name}-{i}" for i in itertools.count())


@runtime_checkable
class HasStates(Protocol):
    """A grid whose devices' states can be saved and put back; Flower's own grids keep theirs elsewhere."""

    def states(self) -> dict[int, bytes]:
        """Device -> its `context.state` in Flower's protobuf; devices whose state is empty are absent."""
        ...

    def restore(self, states: Mapping[int, bytes]) -> None:
        """Put back what `states` gave; devices that are absent there get an empty state."""
        ...


@runtime_checkable
class KnowsDevices(Protocol):
    """A grid that made its nodes and knows which device each is, whatever the node says."""

    def device_of(self, node: int) -> int:
        """The device of a node id of this grid."""
        ...


class DeviceStates:
    """The devices' states of a grid as a part of a checkpoint."""

    def __init__(self, grid: HasStates) -> None:
        self.grid = grid

    def state(self) -> dict[str, Any]:
        """Device, as text -> its state as bytes."""
        return {str(device): data for device, data in self.grid.states().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Give the devices their states back."""
        self.grid.restore({int(device): data for device, data in state.items()})


def identify() -> None:
    """Outside a Flower process no run id is set, and `Message(...)` raises."""
    for name in ("run_id", "task_id", "node_id"):
        try:
            getattr(TaskIdentity, name)
        except RuntimeError:
            setattr(TaskIdentity, name, SERVER_NODE)


@dataclass(frozen=True)
class _Node:
    device: int
    context: Context


class OwnGrid(Grid):
    """What Flower's interface demands of a grid and all of ours have alike."""

    _run: Run | None = None

    def set_run(self, run: Run) -> None:
        """Flower tells which run it is."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that Flower told."""
        if self._run is None:
            raise RuntimeError(f"{type(self).__name__} has no run; call set_run first")
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Deprecated in Flower; here because the interface demands it. Use `Message`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)


class Around(OwnGrid):
    """A grid around another one, which does the work: what is not said otherwise is as it is there.

    Attributes:
        inner: that grid.
    """

    inner: Grid

    def set_run(self, run: Run) -> None:
        """As the grid inside."""
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        """As the grid inside."""
        return self.inner.run

    def get_node_ids(self) -> Iterable[int]:
        """As the grid inside."""
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the grid inside."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the grid inside."""
        return self.inner.pull_messages(message_ids)


@contextmanager
def quiet() -> Iterator[None]:
    """Flower's logger prints a page a run; over our own grids progress says what is happening."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


class LocalGrid(OwnGrid):
    """All devices in this process, one after another in the order of the messages.

    Args:
        client_app: what every device runs; a function around a ClientApp sees messages and replies.
        devices: how many; device `i` gets the `node_config` of that name.
        run_config: flat run config, given to every device.
        roundtrip: send every message and reply through Flower's protobuf serialisation.
    """

    def __init__(
        self, client_app: Client, devices: int, run_config: Mapping[str, Any], *, roundtrip: bool = False
    ) -> None:
        identify()
        self.client_app = client_app
        self.roundtrip = roundtrip
        self._nodes = {
            node_id(i): _Node(
                i,
                Context(
                    TaskIdentity.run_id, node_id(i), node_config(i, devices), RecordDict(), dict(run_config)
                ),
            )
            for i in range(devices)
        }
        self._pushed: dict[str, Message] = {}
        self._ids = new_ids()

    def context(self, device: int) -> Context:
        """The context of a device, for looking at in tests."""
        return self._nodes[node_id(device)].context

    def device_of(self, node: int) -> int:
        """See `KnowsDevices`."""
        return self._nodes[node].device

    def states(self) -> dict[int, bytes]:
        """See `HasStates`."""
        return {n.device: state_bytes(n.context.state) for n in self._nodes.values() if n.context.state}

    def restore(self, states: Mapping[int, bytes]) -> None:
        """See `HasStates`."""
        for node in self._nodes.values():
            node.context.state = state_of(states[node.device]) if node.device in states else RecordDict()

    def get_node_ids(self) -> Iterable[int]:
        """Nodes of all devices, by device."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; they are worked on when pulled.

        Raises:
            ValueError: a message to a node that does not exist.
        """
        ids = []
        for message in messages:
            if message.metadata.dst_node_id not in self._nodes:
                raise ValueError(
                    f"no node {message.metadata.dst_node_id} in this grid of {len(self._nodes)} devices"
                )
            with_id(message, next(self._ids))
            self._pushed[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Work on the messages of these ids that are not yet pulled; their replies."""
        return [self._work(self._pushed.pop(i)) for i in list(message_ids) if i in self._pushed]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Replies in the order of the messages; tasks that would begin after `timeout` seconds are left
        unanswered.
        """
        ids = list(self.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        for message_id in ids:
            if end is not None and time.monotonic() > end:
                self._pushed.pop(message_id)
                continue
            replies.extend(self.pull_messages([message_id]))
        return replies

    def _work(self, message: Message) -> Message:
        node = self._nodes[message.metadata.dst_node_id]
        if self.roundtrip:
            received = over_the_wire(message)
        else:
            received = Message(content=copied(message.content), metadata=message.metadata)  # type: ignore[call-overload]
        reply = with_id(attempt(self.client_app, received, node.context), next(self._ids))
        if not self.roundtrip:
            return reply
        try:
            return over_the_wire(reply)
        except (TypeError, ValueError) as err:  # a number of more than 64 bits, text that is not Unicode
            return with_id(failed(message, err), next(self._ids))
