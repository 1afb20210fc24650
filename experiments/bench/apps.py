"""The apps that `experiments.bench.fleet` runs on every engine: a client that does nothing, and a real run
whose device phases are timed. Under `flwr run` a pyproject.toml in a temporary folder points here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

idle, one_by_one, real = ClientApp(), ServerApp(), ServerApp()


@idle.train()
def train(message: Message, context: Context) -> Message:
    """A reply of two numbers; two more stay in the state."""
    context.state["seen"] = MetricRecord({"n": 1, "loss": 0.5})
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)


def ask(grid: Grid, nodes: list[int]) -> list[Message]:
    """One round of the idle client; the replies.

    Raises:
        RuntimeError: not all answered.
    """
    content = RecordDict({"metrics": MetricRecord({"round": 1, "lr": 0.1})})
    messages = [Message(content, dst_node_id=n, message_type="train") for n in nodes]
    replies = list(grid.send_and_receive(messages, timeout=600))
    if len(replies) != len(nodes) or any(r.has_error() for r in replies):
        raise RuntimeError(f"{len(replies)} of {len(nodes)} devices answered, or with errors")
    return replies


@one_by_one.main()
def tiny(grid: Grid, context: Context) -> None:
    """Rounds of the idle client over all nodes; their seconds go to the file `seconds`."""
    count, found = int(context.run_config["nodes"]), []
    while len(nodes := list(grid.get_node_ids())) < count:
        time.sleep(0.2)
    for _ in range(int(context.run_config["tries"])):
        began = time.perf_counter()
        ask(grid, nodes)
        found.append(time.perf_counter() - began)
    Path(str(context.run_config["seconds"])).write_text(json.dumps(found))


def timed(grid: Any) -> list[float]:
    """The seconds of every train phase that this grid will see, a list that grows."""
    seconds, send = list[float](), grid.send_and_receive

    def send_and_receive(messages: Any, *, timeout: float | None = None) -> Any:
        messages, began = list(messages), time.perf_counter()
        replies = list(send(messages, timeout=timeout))
        if messages and messages[0].metadata.message_type == "train":
            seconds.append(time.perf_counter() - began)
        return replies

    grid.send_and_receive = send_and_receive
    return seconds


@real.main()
def run(grid: Grid, context: Context) -> None:
    """An ordinary run; the seconds of its train phases go beside its folder."""
    from strategies.run import run as run_on

    seconds = timed(grid)
    folder = run_on(grid, context)
    folder.with_suffix(".seconds").write_text(json.dumps(seconds))
