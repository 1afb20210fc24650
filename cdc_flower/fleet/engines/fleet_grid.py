"""FleetGrid: Flower's public `Grid` over Ray actors that each take a bundle of device-tasks at a time.

Stock simulation hands one message after another through its state to an actor, 8 to 20 ms a device-task. Here
a bundle of messages and the states of their devices go to an actor in one call and come back in one; the
actor keeps its models, reads an update once and answers the questions of all its devices together. Bundles
shrink towards the end of a round (guided self-scheduling, Polychronopoulos and Kuck, IEEE ToC 1987), so that
no worker waits long for the last. An idle device is 12 bytes here, and its serialised state once it has one;
results and states are those of `LocalGrid`, whatever the number of workers. What ends a worker (out of
memory, a crash) ends nothing else: replies and states come back together or not at all, and the bundle runs
again elsewhere from the same states. Client code is named, not passed, and imported by the actor: strategies
do not import clients."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from flwr.app import Error, Message

from cdc_flower.config import RunError
from cdc_flower.fleet.engines.depot import OUT, Files, depot
from cdc_flower.fleet.engines.local_grid import OwnGrid, identify, new_ids, node_id
from cdc_flower.fleet.engines.worker import FleetWorker, Sent
from cdc_flower.fleet.engines.workers import Workers
from cdc_flower.wire.messages import RAISED, with_id

BUNDLE_SECONDS = 0.2  # a bundle is cut to take no less, so that handing it over costs little
MOST = 1000  # tasks of a bundle: bounds what is in memory twice
DEATHS = 3  # of workers with one bundle; then it is halved, and one message alone gets an error reply


@dataclass(eq=False)
class _Cut:
    """Messages for one worker, and how many workers died with them."""

    messages: list[Message]
    deaths: int = 0


class FleetGrid(OwnGrid):
    """Devices on Ray actors.

    Args:
        client_app: "module:attribute" of the ClientApp that every device runs.
        devices: how many; device `i` gets the `node_config` of that name.
        run_config: flat run config, given to every device.
        bundle: "module:attribute" of a `worker.Bundle` that does the same for many messages at once; "" = the
            ClientApp is called message by message.
        workers, ray_address, gpu_fraction: see `Workers`.
        files: what devices read, asked once, before the first message; for workers on other machines.

    Raises:
        ConfigError: the cluster cannot be reached or has less than the workers need.
    """

    def __init__(
        self,
        client_app: str,
        devices: int,
        run_config: Mapping[str, Any],
        *,
        bundle: str = "",
        workers: int = 0,
        ray_address: str = "",
        gpu_fraction: float = 0.0,
        files: Callable[[], Files] = dict,
    ) -> None:
        identify()
        self.devices = devices
        nodes = np.fromiter((node_id(i) for i in range(devices)), np.uint64, devices)
        order = np.argsort(nodes)
        self._nodes, self._device = nodes[order], order.astype(np.int32)
        self._states: dict[int, bytes] = {}
        self._pushed: dict[str, Message] = {}
        self._ids = new_ids()
        self._pace: dict[str, float] = {}  # message type -> seconds a task of it takes at best
        settings, paths = dict(run_config), [os.path.abspath(p) for p in sys.path]
        arguments = client_app, bundle, devices, settings, paths, gpu_fraction > 0
        self.workers = Workers(FleetWorker, arguments, workers, ray_address, gpu_fraction)
        self._depot: tuple[Any, str] | None = None
        self._files = files, str(run_config.get(OUT, ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self.close()
        if kind is KeyboardInterrupt:
            self.workers.check()  # the interruption may be the watch's, who has seen Ray die

    def close(self) -> None:
        """End the workers, and Ray where this grid started it."""
        self.workers.close()

    def device_of(self, node: int) -> int:
        """See `KnowsDevices`."""
        return int(self._device[np.searchsorted(self._nodes, np.uint64(node))])

    def states(self) -> dict[int, bytes]:
        """Device -> its serialised state; devices whose state is empty are absent."""
        return dict(self._states)

    def restore(self, states: Mapping[int, bytes]) -> None:
        """Go on from `states()`."""
        self._states = {device: state for device, state in states.items() if state}

    def get_node_ids(self) -> Iterable[int]:
        """Nodes of all devices, by device."""
        return [node_id(i) for i in range(self.devices)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; they are worked on when pulled.

        Raises:
            ValueError: a message to a node that does not exist.
        """
        messages = list(messages)
        self._devices_of(messages)
        for message in messages:
            self._pushed[self._number(message)] = message
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Work on the messages of these ids that are not yet pulled; their replies."""
        return self._play([self._pushed.pop(i) for i in list(message_ids) if i in self._pushed], None)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Replies in the order of the messages. What has not come back `timeout` seconds after there was a
        worker has not happened: it is left unanswered, its worker is ended, and its devices have the states
        they had.
        """
        self.workers.wait()
        end = None if timeout is None else time.monotonic() + timeout
        ids = list(self.push_messages(messages))
        return self._play([self._pushed.pop(i) for i in ids], end)

    def _number(self, message: Message) -> str:
        return with_id(message, next(self._ids)).metadata.message_id

    def _devices_of(self, messages: Sequence[Message]) -> list[int]:
        """The devices that messages go to.

        Raises:
            ValueError: there is no such node.
        """
        nodes = np.array([m.metadata.dst_node_id for m in messages], np.uint64)
        places = np.searchsorted(self._nodes, nodes).clip(max=self.devices - 1)
        unknown = nodes[self._nodes[places] != nodes]
        if len(unknown):
            raise ValueError(f"no node {unknown[0]} in this grid of {self.devices} devices")
        return self._device[places].tolist()

    def _play(self, messages: Sequence[Message], end: float | None) -> list[Message]:
        """Replies in the order of the messages. Messages to one device follow one another."""
        if self.workers.cluster and self._depot is None:
            files, out = self._files
            self._depot = depot(out, files())
        self.workers.grow()
        replies: dict[str, Message] = {}
        left = list(messages)
        while left:
            first: dict[int, Message] = {}
            for message in left:
                first.setdefault(message.metadata.dst_node_id, message)
            taken = {m.metadata.message_id for m in first.values()}
            left = [m for m in left if m.metadata.message_id not in taken]
            with _uncollected():
                self._wave(list(first.values()), end, replies)
        return [replies[i] for i in (m.metadata.message_id for m in messages) if i in replies]

    def _wave(self, messages: list[Message], end: float | None, replies: dict[str, Message]) -> None:
        queue, again = deque(_grouped(messages)), deque[_Cut]()
        share = -(-len(queue) // self.workers.count)
        running: dict[Any, tuple[Any, _Cut]] = {}
        try:
            while queue or again or running:
                on_time = end is None or time.monotonic() < end
                while on_time and (queue or again) and (worker := self.workers.take(not running)) is not None:
                    cut = again.popleft() if again else self._next(queue, share)
                    running[worker.work.remote(self._sent(cut), self._depot)] = worker, cut
                if not running:
                    break
                left = None if end is None else max(0.0, end - time.monotonic())
                ready = self.workers.starting if on_time and (queue or again) else []
                done = self.workers.waited([*running, *ready], left)
                if not done:
                    break
                if done[0] in ready:
                    continue
                worker, cut = running.pop(done[0])
                if self._taken_over(done[0], cut, replies):
                    self.workers.give_back(worker)
                else:
                    again.extend(self._after_death(cut, self.workers.died(worker), replies))
        finally:
            for worker, _ in running.values():  # out of time, or interrupted: it has not happened
                self.workers.replace(worker)

    def _next(self, queue: deque[Message], share: int) -> _Cut:
        """Half of a fair share of what is left, but enough to be worth the way."""
        kind = queue[0].metadata.message_type
        worth = int(BUNDLE_SECONDS / self._pace[kind]) if self._pace.get(kind) else 1
        size = max(-(-len(queue) // (2 * self.workers.count)), min(worth, share))
        return _Cut([queue.popleft() for _ in range(min(size, len(queue), MOST))])

    def _sent(self, cut: _Cut) -> list[Sent]:
        # One list, so that what messages share (a frame) is serialised once.
        devices = self._devices_of(cut.messages)
        return [(d, self._states.get(d, b""), m) for d, m in zip(devices, cut.messages, strict=True)]

    def _taken_over(self, ref: Any, cut: _Cut, replies: dict[str, Message]) -> bool:
        """Take replies and states of a bundle; False when its worker died."""
        from ray.exceptions import RayError, RayTaskError

        try:
            found, seconds = self.workers.result(ref)
        except RayTaskError as err:
            if isinstance(err.cause, RunError):
                raise err.cause from None
            raise err.as_instanceof_cause() from None  # not a device's: the bundle function's own
        except RayError:
            return False
        devices = self._devices_of(cut.messages)
        for device, message, (reply, state) in zip(devices, cut.messages, found, strict=True):
            if state:
                self._states[device] = state
            else:
                self._states.pop(device, None)
            self._number(reply)
            replies[message.metadata.message_id] = reply
        kind, pace = cut.messages[0].metadata.message_type, seconds / len(cut.messages)
        self._pace[kind] = min(pace, self._pace.get(kind, pace))  # the first loads models, small are slow
        return True

    def _after_death(self, cut: _Cut, alone: bool, replies: dict[str, Message]) -> list[_Cut]:
        """What to try again of a bundle whose worker died, alone or with its machine."""
        cut.deaths += alone
        if cut.deaths < DEATHS:
            return [cut]
        half = len(cut.messages) // 2
        if half:
            return [_Cut(cut.messages[:half]), _Cut(cut.messages[half:])]
        (message,) = cut.messages
        reply = Message(Error(RAISED, f"its worker process died {DEATHS} times"), reply_to=message)
        self._number(reply)
        replies[message.metadata.message_id] = reply
        return []


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without a search for garbage. The messages of a round live until it ends, so there is nothing to find
    among them, and looking took a third of this process's time.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _grouped(messages: Sequence[Message]) -> list[Message]:
    """Messages of one type and with one frame (of one version, that is) next to one another."""
    groups: dict[tuple[Any, ...], list[Message]] = {}
    for message in messages:
        frames = [a.data for record in message.content.array_records.values() for a in record.values()]
        groups.setdefault((message.metadata.message_type, *frames), []).append(message)
    return [message for group in groups.values() for message in group]
