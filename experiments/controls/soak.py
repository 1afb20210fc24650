"""A deployment under random kills: no sample lost, none counted twice, all mirrors equal.

`python -m experiments.controls.soak [--minutes 60] [--devices 3] [--every 60] [--out FOLDER]`, or `make soak
OUT=FOLDER`, provisions a cloud and devices on this machine and starts all of it. Then, again and again,
SIGKILL goes to one of: an agent, a SuperNode, a whole device (as if its power failed), the SuperLink, the
ServerApp, or the whole cloud. What was killed on a device is started again after a while, as its service
manager would; in the cloud `cloud up` starts SuperLink and ServerApp again, and it is started again itself.
After the last kill everything may come to rest, and is then killed and compared. The moments and victims are
drawn from a seed.

Every sample that a device spooled must have been taken by the cloud once, wait on the device, or have been
dropped by the spool's bound. The cloud says how many samples it took of each device, and the device how many
it deleted because of that; a reply that the cloud took last may still be on the device, which learns of it
with the next order. The adapter of each device must have the digest that the cloud gave to its version.
`soak.json` says all that; the exit code is 1 where something is not as it must be.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from cdc_flower import disk
from cdc_flower.fleet.engines.adapter_files import HELD, read
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_of
from clients.device.settings import Bundle
from clients.device.spool import Spool
from experiments.controls.deployed import SMALL, START, Deployment, Device, deployment
from experiments.run.processes import Program, until

SETTINGS = {**SMALL, "run.rounds": 600}
"""Of the run; the devices' streams have that many rounds."""
CLOUD = {"round_timeout": 25.0}
"""Of the cloud: a round goes on without a device that died in it."""
BOUNDS = {"spool_samples": 40}
"""Of a device: small, so that the bound is met."""
AWAY = (0.0, 8.0)  # s, until what was killed on a device is started again
AGAIN = 5.0  # s, between two starts of a program that ends by itself
REST = 300.0  # s, at most, until everything has come to rest


@dataclass(frozen=True)
class Account:
    """Where the samples of a device are.

    Attributes:
        spooled: came into its spool, ever.
        taken: the cloud has taken, as the device knows or will learn.
        waiting: on the device, to be sent.
        dropped: by the bound.
        cloud: taken, as the cloud says.
        version: of its adapter.
        mirror: whether that has the digest which the cloud gave to the version, and can be read.
    """

    device: int
    spooled: int
    taken: int
    waiting: int
    dropped: int
    cloud: int
    version: int
    mirror: bool

    @property
    def lost(self) -> int:
        """Samples that are nowhere."""
        return max(0, self.spooled - self.taken - self.waiting - self.dropped) + max(
            0, self.taken - self.cloud
        )

    @property
    def double(self) -> int:
        """Samples that are somewhere twice."""
        return max(0, self.cloud - self.taken) + max(
            0, self.taken + self.waiting + self.dropped - self.spooled
        )


@dataclass
class Soak:
    """What came of it; `soak.json`."""

    minutes: float
    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    versions: int = 0
    devices: list[Account] = field(default_factory=list)

    def found(self) -> dict[str, Any]:
        """As it is written."""
        total = {
            name: sum(getattr(d, name) for d in self.devices)
            for name in ("spooled", "taken", "waiting", "dropped", "lost", "double")
        }
        mirrors = bool(self.devices) and all(d.mirror for d in self.devices)
        right = mirrors and total["lost"] == total["double"] == 0 and total["taken"] > 0
        return {**asdict(self), **total, "mirrors_equal": mirrors, "ok": right}


class Keeper:
    """A service manager: starts again what has ended, unless it is to be away for a while."""

    def __init__(self, programs: list[Program]) -> None:
        self._due = {p.name: 0.0 for p in programs}
        self.programs = programs

    def away(self, program: Program, seconds: float) -> None:
        """Kill a program, and leave it for a while."""
        program.kill()
        self._due[program.name] = time.monotonic() + seconds

    def look(self) -> None:
        """Start what is due."""
        now = time.monotonic()
        for program in list(self.programs):
            if not program.runs and now >= self._due[program.name]:
                program.start()
                self._due[program.name] = now + AGAIN


Kill = Callable[[Deployment, Keeper, random.Random], bool]
"""Kills something; False where it was not there."""


def _one(fleet: Deployment, rng: random.Random) -> Device:
    return rng.choice(fleet.devices)


def agent(fleet: Deployment, keeper: Keeper, rng: random.Random) -> bool:
    """An agent."""
    keeper.away(_one(fleet, rng).agent, rng.uniform(*AWAY))
    return True


def supernode(fleet: Deployment, keeper: Keeper, rng: random.Random) -> bool:
    """A SuperNode, with the ClientApp that it may have started."""
    keeper.away(_one(fleet, rng).node, rng.uniform(*AWAY))
    return True


def device(fleet: Deployment, keeper: Keeper, rng: random.Random) -> bool:
    """Both of a device."""
    victim, seconds = _one(fleet, rng), rng.uniform(*AWAY)
    keeper.away(victim.node, seconds)
    keeper.away(victim.agent, seconds)
    return True


def _of_flower(fleet: Deployment, word: str) -> bool:
    found = fleet.of_flower(word)
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return bool(found)


def superlink(fleet: Deployment, keeper: Keeper, rng: random.Random) -> bool:
    """The SuperLink alone; `cloud up` is to notice."""
    return _of_flower(fleet, "flower-superlink")


def serverapp(fleet: Deployment, keeper: Keeper, rng: random.Random) -> bool:
    """The process that runs the rounds alone; `cloud up` is to notice."""
    return _of_flower(fleet, "flwr-serverapp")


def cloud(fleet: Deployment, keeper: Keeper, rng: random.Random) -> bool:
    """All of the cloud."""
    keeper.away(fleet.cloud, rng.uniform(*AWAY))
    return True


KILLS: dict[str, Kill] = {
    kill.__name__: kill for kill in (agent, supernode, device, superlink, serverapp, cloud)
}


def account(
    fleet: Deployment, one: Device, digests: dict[int, str], taken: dict[int, tuple[int, int]]
) -> Account:
    """Where the samples of a device are, when all is still.

    Args:
        fleet: none of it runs.
        one: the device.
        digests: version -> its digest, as the cloud says it.
        taken: see `Deployment.taken`.
    """
    bundle = Bundle.of(one.bundle)
    own, (samples, last) = bundle.device, taken.get(one.number, (0, 0))
    with one.database() as database:
        facts = Spool(database, own.spool_samples, own.spool_bytes).facts()
        out = {r: n for r, n in database.rows("SELECT round, count(*) FROM samples GROUP BY round") if r}
        kept = database.fact("state")
    unsaid = out.get(last, 0) if last else 0  # taken, and the device was not told yet
    version, same = 0, True
    held = state_of(kept).config_records.get(HELD) if kept else None
    if held is not None:
        version, digest = int(held[keys.VERSION]), bytes(held[keys.DIGEST])  # type: ignore[arg-type]
        same = digests.get(version) == digest.hex() and read(bundle.adapters, digest) is not None
    waiting = facts.waiting + facts.out - unsaid
    return Account(
        one.number, facts.came, facts.taken + unsaid, waiting, facts.dropped, samples, version, same
    )


def soak(
    folder: Path,
    minutes: float = 60.0,
    devices: int = 3,
    every: float = 60.0,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Soak:
    """See the module.

    Args:
        folder: for the deployment, new.
        minutes: of kills; an interrupt (SIGINT) ends them earlier, in good order.
        devices: how many.
        every: seconds from one kill to the next, on the mean.
        seed: of moments and victims.
        tell: is told what was killed.
    """
    found, rng, kills = Soak(minutes, seed), random.Random(seed), Counter[str]()
    with deployment(folder) as fleet:
        fleet.provision(devices, SETTINGS, CLOUD, BOUNDS)
        keeper = Keeper(fleet.programs)
        keeper.look()
        until(_looked(keeper, lambda: fleet.round >= 1), 2 * START, "the first round is done", fleet.programs)
        begun, order = time.monotonic(), list(KILLS)
        next_kill = begun
        with suppress(KeyboardInterrupt):  # enough: what was killed so far is counted, too
            while (now := time.monotonic()) < begun + 60 * minutes:
                keeper.look()
                if now >= next_kill:
                    if not order:
                        order = list(KILLS)
                    name = order.pop(rng.randrange(len(order)))
                    if KILLS[name](fleet, keeper, rng):
                        kills[name] += 1
                    tell(f"{now - begun:7.1f} s  round {fleet.round:4d}  {name}")
                    next_kill = now + rng.uniform(0.2, 1.8) * every
                time.sleep(0.2)
        found.minutes = round((time.monotonic() - begun) / 60, 1)
        _rest(fleet, keeper)
        found.rounds = fleet.round
        status = fleet.status()
        for program in [*(d.node for d in fleet.devices), fleet.cloud, *(d.agent for d in fleet.devices)]:
            program.kill()
        digests = {int(v["version"]): str(v["digest"]) for v in status["versions"]}
        found.kills, found.versions = dict(kills), int(status["version"])
        found.starts = {p.name: p.starts for p in fleet.programs}
        taken = fleet.taken()
        found.devices = [account(fleet, d, digests, taken) for d in fleet.devices]
    return found


def _looked(keeper: Keeper, condition: Callable[[], bool]) -> Callable[[], bool]:
    """A condition that is asked while the service manager does its work."""

    def ask() -> bool:
        keeper.look()
        return condition()

    return ask


def _rest(fleet: Deployment, keeper: Keeper) -> None:
    """Wait until every device has answered again, twice."""
    counts = {d["device"]: d["rounds"] for d in fleet.status()["devices"]}

    def rested() -> bool:
        now = {d["device"]: d["rounds"] for d in fleet.status()["devices"]}
        return all(now.get(d.number, 0) >= counts.get(d.number, 0) + 2 for d in fleet.devices)

    until(_looked(keeper, rested), REST, "every device answers again", fleet.programs)


def main(
    minutes: Annotated[float, typer.Option(min=0.1, max=1e5, help="Of kills.")] = 60.0,
    devices: Annotated[int, typer.Option(min=1, max=50, help="How many.")] = 3,
    every: Annotated[float, typer.Option(min=1, max=3600, help="Seconds between kills, mean.")] = 60.0,
    out: Annotated[Path | None, typer.Option(help="For soak.json; default: a temporary folder.")] = None,
    seed: Annotated[int, typer.Option(help="Of moments and victims.")] = 0,
) -> None:
    """Kill parts of a deployment at random, and count samples."""
    target = (out or Path(tempfile.mkdtemp(prefix="soak-"))).absolute()
    target.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="fleet-", dir=target))
    found = soak(folder, minutes, devices, every, seed, typer.echo).found()
    disk.replace(target / "soak.json", (json.dumps(found, indent=1) + "\n").encode())
    for name in (
        "kills",
        "rounds",
        "spooled",
        "taken",
        "waiting",
        "dropped",
        "lost",
        "double",
        "mirrors_equal",
    ):
        typer.echo(f"{name:14} {found[name]}")
    typer.echo(f"{target / 'soak.json'}: {'ok' if found['ok'] else 'NOT OK'}")
    raise typer.Exit(not found["ok"])


if __name__ == "__main__":
    typer.run(main)
