"""The simulator against a deployment: the same run over shaped links, and in virtual time.

`python -m experiments.controls.truth [--devices 3] [--rounds 6] [--out FOLDER]` provisions a cloud and
devices on this machine, each device in a network namespace of its own (`spaces`), and lets it run: first over
links without a rate, then over slower and slower ones. Afterwards the same run is simulated with this
machine's profile, as `cdc-flower calibrate` measures it, and the links' rates. The ledger must be the same,
byte for byte.

Flower's deployment has a floor that the simulator has not: SuperNodes ask for messages every three seconds, a
process is started for each, and a message takes several calls. The rounds without a rate measure it, as
seconds and as bytes on the wire beside those of the ledger. Of these bytes those are left out that pass in as
many seconds when nothing is asked: with them a SuperNode asks whether there is anything, and nobody waits for
them. A predicted round takes that floor, the seconds that the simulator says this link takes longer than one
without a rate, and those of the floor's bytes at its rate. `truth.json` has all figures; the exit code is 1
where a ledger differs or a round time is off by more than `--most`.
"""

from __future__ import annotations

import json
import sys
import tempfile
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
from experiments.controls.spaces import Space, possible, spaces
from experiments.run.processes import Program, until
from strategies.run import run_local

COLUMNS = ["round", "device", "status", "uplink_bytes", "downlink_bytes", "uploaded_samples", "tokens_sent"]
DELAY = 0.02  # s, of each direction
LINKS = ((0.0, 0.0), (24_000.0, 48_000.0), (8_000.0, 16_000.0))
"""Bytes/s up and down; 0 = no rate. The first measures the floor."""
FREE = 1e9  # bit/s of a link without a rate, in a profile
SETTINGS = {**SMALL, "run.samples-per-round": 16}
QUIET = 9.0  # s: three questions of a SuperNode


@dataclass(frozen=True)
class Phase:
    """Rounds over one kind of link.

    Attributes:
        up, down: bytes/s.
        seconds: of each round, deployed.
        simulated: of the same rounds, in virtual time.
        extra_up, extra_down: bytes on the wire in a round and for a device, beside those of the ledger and
            those that pass when nothing is asked.
    """

    up: float
    down: float
    seconds: tuple[float, ...]
    simulated: tuple[float, ...]
    extra_up: float
    extra_down: float

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
    calls = floor.extra_up / phase.up + floor.extra_down / phase.down if phase.up and phase.down else 0.0
    return floor.deployed + longer + calls


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


def play(fleet: Deployment, found: Sequence[Space], rounds: int) -> list[tuple[list[float], list[int]]]:
    """Let a fleet run over each of `LINKS` in turn, `rounds` rounds each after one that is not counted.

    Returns:
        Of each link the seconds of its rounds, and the bytes up and down on the wire in a round, of all
        devices.
    """
    done, each = [], rounds + 1
    for link, (up, down) in enumerate(LINKS):
        first = link * each + 1
        until(lambda first=first: fleet.round >= first - 1, 4 * START, f"round {first - 1}", fleet.programs)
        for space in found:
            space.shape(up, down)
        times, wire = [], []
        for number in range(first, first + each):
            until(lambda n=number: fleet.round >= n, 4 * START, f"round {number}", fleet.programs)
            times.append(time.monotonic())
            wire.append([sum(counts) for counts in zip(*(space.bytes() for space in found), strict=True)])
        seconds = [b - a for a, b in pairwise(times)]
        done.append((seconds, [round((b - a) / rounds) for a, b in zip(wire[0], wire[-1], strict=True)]))
    return done


def quiet(samples: Sequence[tuple[float, int, int]]) -> tuple[float, float]:
    """Bytes/s up and down when nothing is asked: in the quietest `QUIET` seconds.

    Args:
        samples: moments [s] and the bytes up and down until then.
    """
    rates = [(0.0, 0.0)]
    for at, up, down in samples:
        after = next(((t - at, u - up, d - down) for t, u, d in samples if t >= at + QUIET), None)
        if after is not None and after[1]:
            rates.append((after[1] / after[0], after[2] / after[0]))
    return min(rates[1:], default=rates[0])


def waited(fleet: Deployment, found: Sequence[Space]) -> tuple[float, float]:
    """Bytes/s up and down of a device, from when all are connected until the first round is done."""
    samples = list[tuple[float, int, int]]()
    until(lambda: all("SuperNode ID" in d.node.said() for d in fleet.devices), START, "nodes", fleet.programs)

    def sampled() -> bool:
        up, down = (sum(counts) for counts in zip(*(space.bytes() for space in found), strict=True))
        samples.append((time.monotonic(), up, down))
        return fleet.round >= 1

    until(sampled, 4 * START, "round 1", fleet.programs)
    up, down = quiet(samples)
    return up / len(found), down / len(found)


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
            idle = waited(fleet, found)
            played = play(fleet, found, rounds)
            until(lambda: not fleet.cloud.runs, START, "the cloud ends", fleet.programs)
        real = results.read(fleet.cloud_folder / "run").devices
        runs = simulated(fleet, folder, LINKS)
    same = [run.devices[COLUMNS].to_dict("list") == real[COLUMNS].to_dict("list") for run in runs]
    virtual, phases, free = [virtual_seconds(run) for run in runs], list[Phase](), list[list[float]]()
    for link, ((up, down), (seconds, wire)) in enumerate(zip(LINKS, played, strict=True)):
        numbers = range(link * each + 2, (link + 1) * each + 1)
        own = real[real["round"].isin(numbers)]
        message = [own[name].sum() / rounds for name in ("uplink_bytes", "downlink_bytes")]
        always = [rate * median(seconds) for rate in idle]
        extra = [max(0.0, (w - m) / devices - a) for w, m, a in zip(wire, message, always, strict=True)]
        in_virtual = tuple(virtual[link][n] for n in numbers)
        phases.append(Phase(up, down, tuple(seconds), in_virtual, extra[0], extra[1]))
        free.append([virtual[0][n] for n in numbers])
    expected = [predicted(phases[0], phase, without) for phase, without in zip(phases, free, strict=True)]
    rows = [
        {**asdict(phase), "predicted": seconds, "deployed": phase.deployed, "ratio": phase.deployed / seconds}
        for phase, seconds in zip(phases, expected, strict=True)
    ]
    about = {"devices": devices, "rounds": rounds, "idle_up": idle[0], "idle_down": idle[1]}
    return {**about, "ledger_equal": all(same), "links": rows}


def table(found: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "| link up, down | floor | simulator adds | predicted | deployed | ratio |",
        "|---|---|---|---|---|---|",
    ]
    floor = found["links"][0]["deployed"]
    for row in found["links"]:
        rates = f"{row['up'] / 1e3:g}, {row['down'] / 1e3:g} kB/s" if row["up"] else "no rate"
        cells = [rates, f"{floor:.1f} s", f"{row['predicted'] - floor:.1f} s"]
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
