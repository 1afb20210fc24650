"""A cloud and its devices as processes of this machine, to be killed and started again.

What a person does by hand for a deployment (docs/deploy.md), in the same order and with the same commands:
`cdc-flower provision`, `cdc-flower cloud up`, and on every device `cdc-flower device run` and a SuperNode.
Each device's bundle is copied out of the cloud's folder, as to another machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cdc_flower import checkpoint
from cdc_flower.programs import command_path, free_port
from clients.device.database import FILE as DATABASE
from clients.device.database import Database
from clients.device.settings import Bundle
from experiments.deploy import provision
from experiments.run.processes import Program, until
from experiments.run.simulate import OFFLINE
from strategies.served import devices

ROOT = Path(__file__).parents[2]
START = 180.0  # s, for a program to be ready on a loaded machine
SMALL = {
    "run.samples-per-round": 4,
    "cloud.steps": 3,
    "cloud.source-replay": 50,
    "data.scenes-train": 300,
    "data.scenes-test": 100,
    "data.items-per-domain": 20,
}
"""Settings of a run of seconds with the default pair."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of every program: Flower says nothing to anybody, and the commands of this Python are found."""
    found = {**os.environ, **OFFLINE, "PATH": command_path(), "OMP_NUM_THREADS": "1", **(more or {})}
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), found.get("PYTHONPATH", "")]))
    return found


def command(*arguments: str) -> list[str]:
    """`cdc-flower ...` of this tree."""
    return [sys.executable, "-m", "experiments.cli.app", *arguments]


@dataclass
class Device:
    """One device: its bundle, its agent and its SuperNode."""

    number: int
    bundle: Path
    agent: Program
    node: Program

    def start(self) -> None:
        """As at power on."""
        for program in (self.agent, self.node):
            if not program.runs:
                program.start()

    def kill(self) -> None:
        """As if its power failed."""
        self.node.kill()
        self.agent.kill()

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Its database, opened."""
        found = Database(Bundle.of(self.bundle).state / DATABASE)
        try:
            yield found
        finally:
            found.close()


@dataclass
class Deployment:
    """A cloud and its devices.

    Attributes:
        folder: for all of it.
        environment: of all programs.
        place: a device's number and a command -> the command where the device is.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=environment)
    place: Callable[[int, list[str]], list[str]] = field(default=lambda number, command: command)
    devices: list[Device] = field(default_factory=list)

    @property
    def cloud_folder(self) -> Path:
        """What `provision init` made."""
        return self.folder / "cloud"

    def provision(
        self,
        count: int,
        settings: Mapping[str, Any],
        own: Mapping[str, Any] | None = None,
        device: Mapping[str, Any] | None = None,
        addresses: Sequence[str] = (),
        ports: Sequence[int] = (),
        hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    ) -> None:
        """Make the cloud and its devices, each with a published stream as its feed, if not another.

        Args:
            count: of devices.
            settings: of the run.
            own: of `cloud.toml`.
            device: of `device.toml`.
            addresses: where each device calls the cloud, if not where it listens.
            ports: on which each device's agent is asked; none = it is not.
            hosts: names and addresses in the server's certificate.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        cloud = {"port": port, "page_port": 0, "period": 0.0, **(own or {})}
        whole = {**settings, "run.devices": count}
        provision.init(self.cloud_folder, whole, hosts, cloud)
        self.cloud = self._program("cloud", command("cloud", "up", str(self.cloud_folder)))
        for number in range(count):
            at = {"superlink": addresses[number]} if addresses else {}
            port = ports[number] if ports else 0
            mine = {"feed": "stream", "http_port": port, **at, **(device or {})}
            stream = mine["feed"] == "stream"
            _, made = provision.device(self.cloud_folder, number, own=mine, stream=stream)
            self.devices.append(self._device(number, made))

    def _device(self, number: int, made: Path) -> Device:
        bundle = self.folder / f"device-{number}"
        shutil.copytree(made, bundle)
        agent, node = (
            self._program(f"{name}-{number}", self.place(number, command("device", what, str(bundle))))
            for name, what in (("agent", "run"), ("node", "node"))
        )
        return Device(number, bundle, agent, node)

    def _program(self, name: str, whole: Sequence[str]) -> Program:
        return Program(name, whole, self.environment, self.folder / f"{name}.log")

    def start(self) -> None:
        """Start all of it; a SuperNode when its key is known to the cloud, for it ends where it is not.

        Raises:
            TimeoutError: keys are not known after a while.
        """
        for program in (self.cloud, *(d.agent for d in self.devices)):
            program.start()
        until(self._registered, START, "every key is known", [self.cloud])
        for device in self.devices:
            device.start()

    def _registered(self) -> bool:
        return all(one.status == "registered" for one in devices.read(self.cloud_folder).values())

    @property
    def programs(self) -> list[Program]:
        """All of them."""
        return [self.cloud, *(p for d in self.devices for p in (d.agent, d.node))]

    def status(self) -> dict[str, Any]:
        """What the cloud says of itself; {} before it does."""
        try:
            return json.loads((self.cloud_folder / "status.json").read_text())
        except FileNotFoundError:
            return {}

    @property
    def round(self) -> int:
        """The last that was done; -1 before the cloud says anything."""
        return int(self.status().get("round", -1))

    def reach(self, round: int, seconds: float) -> None:
        """Wait until a round is done.

        Raises:
            TimeoutError: it is not; with what everybody said.
        """
        until(lambda: self.round >= round, seconds, f"round {round} is done", self.programs)

    def of_flower(self, word: str) -> list[psutil.Process]:
        """Processes of the cloud with a word in their command line: flower-superlink, flwr-serverapp."""
        found = []
        for process in self.cloud.family():
            try:
                if any(word in part for part in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def taken(self) -> dict[int, tuple[int, int]]:
        """Device -> samples that the cloud took of it, and the last round in which it took its reply: as the
        newest checkpoint has it. Nothing of the cloud may run.
        """
        newest = checkpoint.load_newest(self.cloud_folder / "run" / "checkpoints")
        if newest is None:
            return {}
        parts: Any = newest[1]
        rounds = json.loads(parts["fleet"].get("taken", "{}"))
        tallies = json.loads(parts["status"]["json"])["tallies"]
        return {int(d): (tally["samples"], int(rounds.get(d, 0))) for d, tally in tallies.items()}


@contextmanager
def deployment(folder: Path, more: Mapping[str, str] | None = None) -> Iterator[Deployment]:
    """A deployment to be provisioned in the `with` block; at its end all of it is killed."""
    found = Deployment(folder.absolute(), environment(more))
    try:
        yield found
    finally:
        for device in found.devices:
            device.kill()
        if hasattr(found, "cloud"):
            found.cloud.kill()


def said(arguments: Sequence[str], seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """What a `cdc-flower` command says."""
    return subprocess.run(  # noqa: S603
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=seconds, check=False
    )
