"""Which node is which device, whom a round asks, and whose reply is whose.

Flower's node ids are random in each run and its replies come in any order, so a cohort drawn from node ids or
a sum in the order of arrival is never the same twice. Here one QUERY round says which node is which device;
cohorts are drawn from a seeded generator over devices, and replies are handed on sorted by device.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from cdc_flower.wire import keys

WORKER_DIED = 0  # error code of a reply whose Ray actor is gone; healthy devices are then handed it, too


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
                f"{len(nodes)} nodes connected within {timeout:g} s, setting 'run.devices' = {devices} needs "
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
            said: Any = reply.content.metric_records[keys.METRICS]
            found[int(said[keys.DEVICE])] = reply.metadata.src_node_id
    missing = [d for d in range(devices) if d not in found]
    if missing:
        raise FleetError(
            f"no node answered for device {', '.join(map(str, missing))}; {len(nodes)} nodes are "
            f"connected, setting 'run.devices' = {devices} needs partition-id 0..{devices - 1}"
        )
    return {d: found[d] for d in range(devices)}


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
