"""Which node is which device, whom a round asks, and whose reply is whose.

Flower's node ids are random in each run and its replies come in any order, so a cohort drawn from node ids or
a sum in the order of arrival is never the same twice. Here one QUERY round says which node is which device;
cohorts are drawn from a seeded generator over devices, and replies are handed on sorted by device.

A number belongs to the node that first proved it, for the whole run. Our own engines know which node is which
device, and a claim that they know to be false is none. Elsewhere the first claim counts; where SuperNodes
authenticate, Flower binds the node id to the node's key.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from logging import WARNING
from typing import TypeVar

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from cdc_flower.config import RunError
from cdc_flower.fleet.engines.local_grid import KnowsDevices
from cdc_flower.wire import keys, reply
from cdc_flower.wire.fields import Number, ReplyError, clean
from cdc_flower.wire.reply import Form

SETTLED = 5.0  # s without a further node: a simulation has made all that it will
NAMED = 10  # devices, at most, in an error
SHOWN = 8  # devices whose adapters are evaluated, where each has its own
JUDGED = 100  # the same, where each is judged by its own test items

Key = TypeVar("Key", bound=int)


class FleetError(RunError):
    """Too few devices to go on; the message says how many were there and how many are needed."""


def shown(devices: int, most: int = SHOWN) -> list[int]:
    """The devices that held-out accuracy is the mean of, where each has an adapter of its own: up to `most`,
    evenly spread.
    """
    return np.unique(np.linspace(0, devices - 1, most).astype(int)).tolist()


def wait_for_nodes(grid: Grid, devices: int, timeout: float) -> list[int]:
    """Node ids, as soon as there are `devices` of them, or as many as Flower's simulation has.

    A simulation makes all its nodes at its start, 2 where `flwr run .` was told of no other number: a run
    goes on with them, and the other devices are missing.

    Raises:
        FleetError: not enough of them after `timeout` seconds.
    """
    began = grew = time.monotonic()
    before = 0
    while len(nodes := list(grid.get_node_ids())) < devices:
        now = time.monotonic()
        if len(nodes) > before:
            before, grew = len(nodes), now
        if nodes and now - grew > SETTLED and _simulated(grid):
            log(
                WARNING,
                f"{len(nodes)} simulated nodes, setting 'run.devices' = {devices}: the run goes on without "
                f"the others; with all: flwr run . --federation-config num-supernodes={devices}",
            )
            return nodes
        if now - began > timeout:
            raise FleetError(
                f"{len(nodes)} nodes connected within {timeout:g} s, setting 'run.devices' = {devices} needs "
                f"{devices}; with `flwr run` set --federation-config num-supernodes={devices}"
            )
        time.sleep(0.2)
    return nodes


def _simulated(grid: Grid) -> bool:
    """Whether the nodes are those of a simulation of Flower's."""
    from flwr.superlink.grid import InMemoryGrid  # 0.7 s and 50 MB, which only who lacks nodes pays

    return isinstance(grid, InMemoryGrid)


def discover(grid: Grid, devices: int, timeout: float, least: int = 1) -> dict[int, int]:
    """Device -> node id, sorted, by one QUERY round. A device that no node proves to be is absent.

    Args:
        grid: where the nodes are.
        devices: how many there are, numbered from 0.
        timeout: of connecting, and of answering [s].
        least: fewer known devices end the run.

    Raises:
        FleetError: fewer than `devices` nodes connected, or fewer than `least` devices known.
    """
    nodes = wait_for_nodes(grid, devices, timeout)
    messages = {
        n: Message(
            RecordDict({keys.CONFIG: ConfigRecord()}),
            dst_node_id=n,
            message_type=MessageType.QUERY,
            group_id="0",
        )
        for n in nodes
    }
    form = Form(metrics={keys.DEVICE: Number(int, 0, devices - 1)})
    found: dict[int, int] = {}
    for node, answer in answered(messages, grid.send_and_receive(list(messages.values()), timeout=timeout)):
        try:
            found.setdefault(_claimed(grid, node, answer, form, found), node)
        except ReplyError as err:
            log(WARNING, "node %s is no device of this run: %s", node, err)
    missing = [d for d in range(devices) if d not in found]
    if missing:
        told = ", ".join(map(str, missing[:NAMED])) + (" and others" if len(missing) > NAMED else "")
        if len(found) < max(1, least):
            raise FleetError(
                f"no node answered for device {told}; {len(nodes)} nodes are connected, setting "
                f"'run.devices' = {devices} needs partition-id 0..{devices - 1}"
            )
        log(WARNING, "no node answered for device %s: missing in every round", told)
    return dict(sorted(found.items()))


def _claimed(grid: Grid, node: int, answer: Message, form: Form, found: Mapping[int, int]) -> int:
    """The device that a node says it is.

    Raises:
        ReplyError: it says none, one that it is known not to be, or one that is another node's.
    """
    if answer.has_error():
        raise ReplyError(clean(answer.error.reason))
    device = reply.read(answer.content, form).metrics[keys.DEVICE]
    if isinstance(grid, KnowsDevices) and grid.device_of(node) != device:
        raise ReplyError(f"it claims to be device {device}, which it is not")
    if device in found:
        raise ReplyError(f"it claims to be device {device}, which node {found[device]} was first")
    return device


def drawn(seed: int, round: int, devices: Sequence[int], count: int) -> list[int]:
    """`count` of the devices (all, where there are fewer), sorted; the same for the same seed and round."""
    return sorted(random.Random(f"{seed}-{round}").sample(devices, max(0, min(count, len(devices)))))


def wanted(devices: int, share: float) -> int:
    """How many devices are `share` of them, at least one."""
    return max(1, int(devices * share + 1e-9))


def cohort(seed: int, round: int, devices: int, share: float) -> list[int]:
    """The devices asked in a round, sorted: `share` of them, at least one, the same for the same seed and
    round.
    """
    return drawn(seed, round, range(devices), wanted(devices, share))


def answered(messages: Mapping[Key, Message], replies: Iterable[Message]) -> Iterator[tuple[Key, Message]]:
    """The first reply (content or error) to each message, in the order of arrival; whatever else comes is
    dropped.

    By message ids, because an error reply made by Flower's server carries the server's node id and not the
    device's. That a reply is from the node that was asked says the engine: Flower's SuperLink takes no other.
    """
    awaited = {m.metadata.message_id: key for key, m in messages.items()}
    for answer in replies:
        key = awaited.pop(answer.metadata.reply_to_message_id, None)
        if key is not None:
            yield key, answer


def matched(messages: Mapping[int, Message], replies: Iterable[Message]) -> dict[int, Message | None]:
    """Device -> its reply, None for one that never came; sorted by device. See `answered`."""
    found: dict[int, Message | None] = dict.fromkeys(sorted(messages))
    found.update(answered(messages, replies))
    return found
