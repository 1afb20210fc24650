"""The simulator against a deployment: the same run over shaped links, and in virtual time.

`python -m experiments.controls.truth [--devices 3] [--rounds 6] [--out FOLDER]` provisions a cloud and
devices on this machine, each device in a network namespace of its own (`spaces`), and lets it run: first over
links without a rate, then over slower and slower ones. Afterwards the same run is simulated with this
machine's profile, as `cdc-flower calibrate` measures it, and the links' rates. The ledger must be the same,
byte for byte.

Flower's deployment has a floor that the simulator has not: SuperNodes ask for messages every three seconds, a
process is started for each, and a message takes a dozen calls. The rounds without a rate measure it, as
seconds and as bytes: of every message those that pass on its device's link from when the device asks for it
until it has sent the reply, moment by moment. What passes besides, when a SuperNode asks for messages and
there are none, keeps nobody waiting. `tc` lets `BURST` bytes through at once and then no more than its rate,
so a small call after a pause costs nothing: `held` passes what was recorded, without the bytes of the ledger,
through such buckets, and says how much longer it takes. A predicted round is the floor, the seconds that the
simulator says this link takes longer than one without a rate, and those of the calls. `truth.json` has all
figures; the exit code is 1 where a ledger differs or a round time is off by more than `--most`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from cdc_flower import disk, results
from cdc_flower.config import parse
from cdc_flower.fleet.cost.profiles import read_profiles, write_profiles
from cdc_flower.programs import free_port
from experiments.bench import calibrate
from experiments.controls.deployed import SMALL, START, Deployment, deployment
from experiments.controls.spaces import BURST, Space, possible, spaces
from experiments.run.processes import Program, until
from strategies.run import run_local

COLUMNS = ["round", "device", "status", "uplink_bytes", "downlink_bytes", "uploaded_samples", "tokens_sent"]
DELAY = 0.02  # s, of each direction
LINKS = ((0.0, 0.0), (24_000.0, 48_000.0), (8_000.0, 16_000.0))
"""Bytes/s up and down; 0 = no rate. The first measures the floor."""
FREE = 1e9  # bit/s of a link without a rate, in a profile
SETTINGS = {**SMALL, "run.samples-per-round": 16}
Pair = tuple[float, float]  # of up and down
LOOK = 0.05  # s, between looks at the bytes of a link
ASKED, DONE = "Receiving: ", "Sent successfully"
"""What a SuperNode says when it has a message, and when its reply is with the cloud."""


@dataclass(frozen=True)
class Phase:
    """Rounds over one kind of link.

    Attributes:
        up, down: bytes/s.
        seconds: of each round, deployed.
        simulated: of the same rounds, in virtual time.
        calls: seconds that Flower's calls take longer over this link than over one without a rate.
    """

    up: float
    down: float
    seconds: tuple[float, ...]
    simulated: tuple[float, ...]
    calls: float

    @property
    def deployed(self) -> float:
        """Seconds of a round."""
        return median(self.seconds)


def predicted(floor: Phase, phase: Phase, free: Sequence[float]) -> float:
    """Seconds of a round over a link.

    Args:
        floor: rounds without a rate.
        phase: rounds over the link, simulated with it.
        free: the same rounds, simulated without a rate.
    """
    longer = median(a - b for a, b in zip(phase.simulated, free, strict=True))
    return floor.deployed + longer + phase.calls


@dataclass(frozen=True)
class Look:
    """A moment of a device's link: when [s], and what was until then: bytes up and down, messages that it had
    received, replies that it had sent.
    """

    at: float
    up: int
    down: int
    received: int
    sent: int


def messages(looks: Sequence[Look]) -> list[list[tuple[float, int, int]]]:
    """Of every message the seconds of each look, and its bytes up and down: from the call that fetched it
    until its reply was sent.
    """
    found, begin = list[list[tuple[float, int, int]]](), 0
    for i in range(1, len(looks)):
        before, now = looks[i - 1], looks[i]
        if now.received > before.received:
            begin = i
            while begin > 1 and looks[begin - 1].up > looks[begin - 2].up:
                begin -= 1  # the call that fetched it
        if now.sent > before.sent and begin:
            parts = list(pairwise(looks[begin - 1 : i + 1]))
            found.append([(b.at - a.at, b.up - a.up, b.down - a.down) for a, b in parts])
            begin = 0
    return found


def held(message: Sequence[tuple[float, int, int]], ledger: Pair, rates: Pair) -> float:
    """Seconds by which a link with rates delays the calls of a message.

    Args:
        message: as of `messages`.
        ledger: bytes up and down that are the simulator's to charge; they are in the largest looks.
        rates: bytes/s up and down; 0 = no rate.
    """
    if not all(rates):
        return 0.0
    calls = [_without([look[way] for look in message], ledger[way - 1]) for way in (1, 2)]
    late, tokens = 0.0, [float(BURST), float(BURST)]
    for (seconds, _, _), *sizes in zip(message, *calls, strict=True):
        wait = 0.0
        for way, (size, rate) in enumerate(zip(sizes, rates, strict=True)):
            tokens[way] = min(BURST, tokens[way] + rate * seconds)
            wait = max(wait, (size - tokens[way]) / rate)
            tokens[way] -= size
        late += wait
        tokens = [min(BURST, t + rate * wait) for t, rate in zip(tokens, rates, strict=True)]
    return late


def _without(sizes: Sequence[float], bytes: float) -> list[float]:
    """Sizes of which the largest give up so many bytes."""
    left: list[float] = list(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        taken = min(left[i], bytes)
        left[i], bytes = left[i] - taken, bytes - taken
    return left


class Watch(threading.Thread):
    """Looks at the links of a fleet until it is ended.

    Attributes:
        looks: of each device.
    """

    def __init__(self, fleet: Deployment, found: Sequence[Space]) -> None:
        super().__init__()
        self.looks: list[list[Look]] = [[] for _ in found]
        self._logs, self._spaces, self._over = [d.node.log for d in fleet.devices], found, threading.Event()

    def run(self) -> None:
        """Look."""
        counts, read = [[0, 0] for _ in self.looks], [0 for _ in self.looks]
        while not self._over.wait(LOOK):
            for i, (space, log) in enumerate(zip(self._spaces, self._logs, strict=True)):
                with log.open("rb") as said:
                    said.seek(read[i])
                    new = said.read()
                whole = new[: new.rfind(b"\n") + 1]
                read[i] += len(whole)
                for n, word in enumerate((ASKED, DONE)):
                    counts[i][n] += whole.count(word.encode())
                self.looks[i].append(Look(time.monotonic(), *space.bytes(), *counts[i]))

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


@contextmanager
def placed(fleet: Deployment, devices: int, rounds: int) -> Iterator[list[Space]]:
    """Provision a fleet whose devices are in namespaces, each behind a link with a delay, and start it."""
    with ExitStack() as held:
        found = held.enter_context(spaces(devices))
        port, own = free_port(), [free_port() for _ in found]
        fleet.place = lambda number, command: found[number].inside(command)
        whole = {**SETTINGS, "run.rounds": rounds}
        addresses = [f"{space.here}:{at}" for space, at in zip(found, own, strict=True)]
        hosts = ["127.0.0.1", *(space.here for space in found)]
        cloud = {"port": port, "last_round": rounds, "least": devices}
        fleet.provision(devices, whole, cloud, addresses=addresses, hosts=hosts)
        for number, address in enumerate(addresses):
            link = [sys.executable, "-m", "experiments.controls.link", "--listen", address]
            link += ["--to", f"127.0.0.1:{port}", "--delay", str(DELAY)]
            line = Program(f"link-{number}", link, fleet.environment, fleet.folder / f"link-{number}.log")
            held.callback(line.kill)
            line.start()
        fleet.start()
        yield found


def play(fleet: Deployment, found: Sequence[Space], rounds: int) -> list[tuple[float, ...]]:
    """Let a fleet run over each of `LINKS` in turn, `rounds` rounds each after one that is not counted: of
    each link the moments [s] at which its rounds ended.
    """
    done, each = list[tuple[float, ...]](), rounds + 1
    for link, (up, down) in enumerate(LINKS):
        first = link * each + 1
        until(lambda first=first: fleet.round >= first - 1, 4 * START, f"round {first - 1}", fleet.programs)
        for space in found:
            space.shape(up, down)
        times = []
        for number in range(first, first + each):
            until(lambda n=number: fleet.round >= n, 4 * START, f"round {number}", fleet.programs)
            times.append(time.monotonic())
        done.append(tuple(times))
    return done


def simulated(
    fleet: Deployment, folder: Path, links: Sequence[tuple[float, float]]
) -> list[results.RunResult]:
    """The run of a deployment in virtual time, over each link."""
    measured, like = calibrate.measure(threads=1, quick=True), read_profiles()["minipc"]
    settings = json.loads((fleet.cloud_folder / "settings.json").read_text())
    found = []
    for number, (up, down) in enumerate(links):
        place = folder / f"simulated-{number}"
        place.mkdir(parents=True)
        rates = {"up_bw": 8 * up or FREE, "down_bw": 8 * down or FREE, "rtt": 2 * DELAY, "loss": 0.0}
        write_profiles(place / "here.json", [calibrate.profile("here", measured, like, rates)])
        (place / "mix.toml").write_text('profiles = ["here.json"]\n[mix]\nhere = 100\n')
        virtual = {"fleet.mode": "sync", "fleet.mix": str(place / "mix.toml"), "fleet.trace": "always"}
        virtual |= {"fleet.over-selection": 1.0, "fleet.deadline": 3600.0, "run.out-dir": str(place / "run")}
        found.append(results.read(run_local(parse({**settings, **virtual}))))
    return found


def virtual_seconds(run: results.RunResult) -> dict[int, float]:
    """Round -> its virtual seconds, the cloud's after the round before included."""
    hours = run.metrics[run.metrics["name"] == "hours"].set_index("round")["value"]
    ends = {0: 0.0} | {int(r): 3600 * float(h) for r, h in hours.items()}
    return {r: ends[r] - ends[r - 1] for r in ends if r}


def truth(folder: Path, devices: int = 3, rounds: int = 6) -> dict[str, Any]:
    """See the module; what `truth.json` holds."""
    each = rounds + 1
    with deployment(folder / "deployed") as fleet:
        with placed(fleet, devices, len(LINKS) * each) as found:
            watch = Watch(fleet, found)
            watch.start()
            try:
                played = play(fleet, found, rounds)
                until(lambda: not fleet.cloud.runs, START, "the cloud ends", fleet.programs)
            finally:
                watch.end()
        real = results.read(fleet.cloud_folder / "run").devices
        runs = simulated(fleet, folder, LINKS)
    same = [run.devices[COLUMNS].to_dict("list") == real[COLUMNS].to_dict("list") for run in runs]
    virtual, phases, free = [virtual_seconds(run) for run in runs], list[Phase](), list[list[float]]()
    between = [look for looks in watch.looks for look in messages([x for x in looks if _in(x, played[0])])]
    own = real[real["round"].isin(range(2, each + 1))]
    ledger = float(own["uplink_bytes"].mean()), float(own["downlink_bytes"].mean())
    for link, ((up, down), times) in enumerate(zip(LINKS, played, strict=True)):
        numbers = range(link * each + 2, (link + 1) * each + 1)
        in_virtual = tuple(virtual[link][n] for n in numbers)
        calls = median(held(message, ledger, (up, down)) for message in between)
        seconds = tuple(b - a for a, b in pairwise(times))
        phases.append(Phase(up, down, seconds, in_virtual, calls))
        free.append([virtual[0][n] for n in numbers])
    expected = [predicted(phases[0], phase, without) for phase, without in zip(phases, free, strict=True)]
    rows = [
        {**asdict(phase), "predicted": seconds, "deployed": phase.deployed, "ratio": phase.deployed / seconds}
        for phase, seconds in zip(phases, expected, strict=True)
    ]
    sizes = {
        name: median(sum(part[i] for part in m) for m in between) for i, name in ((1, "up"), (2, "down"))
    }
    about = {"devices": devices, "rounds": rounds, "bytes_of_a_message": sizes, "of_them_the_ledgers": ledger}
    return {**about, "ledger_equal": all(same), "links": rows}


def _in(look: Look, times: Sequence[float]) -> bool:
    return times[0] <= look.at <= times[-1]


def table(found: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "| link up, down | floor | simulator adds | calls add | predicted | deployed | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    floor = found["links"][0]["deployed"]
    for row in found["links"]:
        rates = f"{row['up'] / 1e3:g}, {row['down'] / 1e3:g} kB/s" if row["up"] else "no rate"
        cells = [
            rates,
            f"{floor:.1f} s",
            f"{row['predicted'] - floor - row['calls']:.1f} s",
            f"{row['calls']:.1f} s",
        ]
        cells += [f"{row['predicted']:.1f} s", f"{row['deployed']:.1f} s", f"{row['ratio']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(
    devices: Annotated[int, typer.Option(min=1, max=50, help="How many.")] = 3,
    rounds: Annotated[int, typer.Option(min=2, max=1000, help="Over each link.")] = 6,
    most: Annotated[float, typer.Option(min=0, max=10, help="Share that a round time may be off.")] = 0.2,
    out: Annotated[Path | None, typer.Option(help="For truth.json; default: a temporary folder.")] = None,
) -> None:
    """Compare a deployment over shaped links with its simulation."""
    if why := possible():
        typer.echo(f"error: no network namespaces here: {why}", err=True)
        raise typer.Exit(2)
    target = (out or Path(tempfile.mkdtemp(prefix="truth-"))).absolute()
    target.mkdir(parents=True, exist_ok=True)
    found = truth(Path(tempfile.mkdtemp(prefix="fleet-", dir=target)), devices, rounds)
    disk.replace(target / "truth.json", (json.dumps(found, indent=1) + "\n").encode())
    typer.echo("\n".join(table(found)))
    off = max(abs(row["ratio"] - 1) for row in found["links"])
    typer.echo(
        f"ledger equal: {found['ledger_equal']}; furthest round time {off:.0%}; {target / 'truth.json'}"
    )
    raise typer.Exit(not found["ledger_equal"] or off > most)


if __name__ == "__main__":
    typer.run(main)
