"""What a deployment costs beside Flower alone: rounds, memory of an agent, latency of its answers.

`make bench-deploy`, or `python -m experiments.bench.deploy [--out FOLDER]`: the same devices, over TLS, with
registered keys, play rounds of `cdc` and then rounds of an app that does nothing, whose ServerApp waits as
Flower's own strategies do (`Grid.send_and_receive`). Both are medians on this machine, one after the other.
Memory is that of an agent after its rounds: resident (RSS, shared libraries included) and its own (USS).
Latency is that of one question about one picture: asked of the agent, which reads the picture, answers and
spools on the disk, and of its models alone, in turn. With `--real` it is only what an agent holds, as soon as
it is ready, of a student of half a billion weights, beside what its parts take packed.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from PIL import Image

from cdc_flower import disk
from cdc_flower.programs import free_port
from clients.device import preflight, start
from clients.device.feed import Item
from clients.device.settings import Bundle
from experiments.bench import pairs
from experiments.controls.deployed import SMALL, START, Deployment, deployment
from experiments.controls.soak import Keeper
from experiments.deploy import gate, keys
from experiments.deploy.settings import cloud
from experiments.deploy.superlink import SuperLink
from experiments.run.processes import until
from strategies.served import devices

SERVER = """
import time
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < {devices}:
        time.sleep(0.2)
    with open({path!r}, "w") as file:
        for round in range({rounds} + 1):
            content = RecordDict({{"config": ConfigRecord({{"round": round}})}})
            asked = [Message(content, dst_node_id=n, message_type=MessageType.TRAIN) for n in nodes]
            replies = list(grid.send_and_receive(asked))
            assert len(replies) == len(nodes) and not any(r.has_error() for r in replies), replies
            print(time.time(), file=file, flush=True)
"""
CLIENT = """
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    return Message(RecordDict(), reply_to=message)
"""


def rounds_of_cdc(fleet: Deployment, count: int) -> tuple[list[float], list[tuple[int, int]]]:
    """Seconds of rounds, and resident and own bytes of each agent after them."""
    fleet.start()
    ends = []
    for number in range(1, count + 2):
        until(lambda n=number: fleet.round >= n, 4 * START, f"round {number} is done", fleet.programs)
        ends.append(time.monotonic())
    memory = [psutil.Process(d.agent.pid).memory_full_info() for d in fleet.devices]
    for device in fleet.devices:
        device.node.stop()  # it says goodbye; who was killed is not let in for a minute
    for program in fleet.programs:
        program.kill()
    return [b - a for a, b in pairwise(ends)], [(m.rss, m.uss) for m in memory]


def rounds_of_nothing(fleet: Deployment, count: int) -> list[float]:
    """Seconds of rounds of an app that does nothing, on the SuperLink of a cloud, behind its gate."""
    folder, path = fleet.cloud_folder, fleet.folder / "empty.txt"
    own, link = cloud(folder), SuperLink(folder, free_port())
    link.prepare({})
    app = link.home / "app" / "deployed"
    (app / "server.py").write_text(SERVER.format(devices=len(fleet.devices), path=str(path), rounds=count))
    (app / "client.py").write_text(CLIENT)
    files = {"certificate": folder / keys.SERVER_CERT, "key": folder / keys.SERVER_KEY, "ca": link.ca}
    try:
        with gate.opened(link.url, own.port, own.address, **files):
            link.start()
            there, known = link.nodes(), devices.read(folder)
            assert {one.node_id for one in known.values()} <= there
            keeper = Keeper([device.node for device in fleet.devices])
            link.submit()

            def played() -> bool:
                keeper.look()
                return _lines(path) > count

            until(played, 4 * START, "empty rounds", [link.program, *fleet.programs])
    finally:
        link.stop()
        for device in fleet.devices:
            device.kill()
    return [b - a for a, b in pairwise(map(float, path.read_text().split()))]


def _lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def latency(bundle: Path, count: int = 100) -> tuple[list[float], list[float]]:
    """Seconds of answers of the agent, and of its models alone."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, "PNG")
    picture, question = coded.getvalue(), "what is there?"
    with start.opened(bundle) as agent:

        def alone() -> None:
            agent.student.answer([agent.student.read(Item(question, picture, ""))], adapter)

        adapter, taken = agent.adapter, ([], [])
        for turn in range(count + 5):
            for work, seconds in zip((lambda: agent.ask(question, picture), alone), taken, strict=True):
                took = _timed(work)
                if turn >= 5:
                    seconds.append(took)
    return taken


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def bench(folder: Path, count: int = 3, rounds: int = 6) -> dict[str, Any]:
    """All figures: seconds and bytes."""
    with deployment(folder) as fleet:
        fleet.provision(count, {**SMALL, "run.rounds": rounds + 50}, {"least": count})
        cdc, memory = rounds_of_cdc(fleet, rounds)
        empty = rounds_of_nothing(fleet, rounds)
        agent, alone = latency(fleet.devices[0].bundle)
    return {
        "devices": count,
        "round": median(cdc),
        "empty_round": median(empty),
        "rounds": cdc,
        "empty_rounds": empty,
        "agent_rss": max(rss for rss, _ in memory),
        "agent_uss": max(uss for _, uss in memory),
        "answer": median(agent),
        "model_alone": median(alone),
    }


REAL: Mapping[str, Any] = {
    "drift.axes": "none",
    "data.scenes-train": 6,
    "data.scenes-test": 4,
    "data.items-per-domain": 1,
    "uplink.transform": "none",
}


def real(folder: Path) -> dict[str, float]:
    """Bytes of a large student packed, and of the agent that has it, resident and its own."""
    shapes = dataclasses.replace(pairs.REAL, teacher=pairs.QUICK.teacher)  # which no device has
    pair = pairs.write(shapes, folder / "pair")
    models = {f"pair.{role}": str(pair / role) for role in ("teacher", "student")}
    with deployment(folder / "fleet") as fleet:
        fleet.provision(1, {**SMALL, **REAL, **models}, device={"feed": "folder"})
        agent, bundle = fleet.devices[0].agent, Bundle.of(fleet.devices[0].bundle)
        takes = preflight.packed(bundle)
        agent.start()
        until(lambda: "ready" in agent.said(), 10 * START, "the agent is ready", [agent])
        memory = psutil.Process(agent.pid).memory_full_info()
    return {"student_packed": takes, "agent_rss": memory.rss, "agent_uss": memory.uss}


def main(
    devices: Annotated[int, typer.Option(min=1, max=50, help="How many.")] = 3,
    rounds: Annotated[int, typer.Option(min=2, max=1000, help="Of each app.")] = 6,
    large: Annotated[
        bool,
        typer.Option("--real", help="Only the memory of an agent with a student of 0.5 billion weights."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="For bench-deploy.json.")] = None,
) -> None:
    """Measure a deployment on this machine."""
    with tempfile.TemporaryDirectory(prefix="bench-deploy-") as folder:
        found = real(Path(folder)) if large else bench(Path(folder) / "fleet", devices, rounds)
    for line in lines(found):
        typer.echo(line)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        disk.replace(out / "bench-deploy.json", (json.dumps(found, indent=1) + "\n").encode())


def lines(found: Mapping[str, Any]) -> list[str]:
    """The figures of `bench` or of `real`, in words."""
    memory = f"{found['agent_rss'] / 1e6:,.0f} MB resident, {found['agent_uss'] / 1e6:,.0f} MB its own"
    if "student_packed" in found:
        return [f"an agent          {memory}, of a student of {found['student_packed'] / 1e6:,.0f} MB packed"]
    ratio, slower = found["round"] / found["empty_round"], found["answer"] / found["model_alone"]
    both = f"{found['round']:.1f} s, Flower's empty one {found['empty_round']:.1f} s: {ratio:.2f} x"
    milli = f"{1e3 * found['answer']:.1f} ms, its models alone {1e3 * found['model_alone']:.1f} ms"
    return [
        f"a round of cdc    {both}",
        f"an agent          {memory}",
        f"an answer         {milli}: {slower:.2f} x",
    ]


if __name__ == "__main__":
    typer.run(main)
