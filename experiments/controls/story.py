"""A deployment from the first key to a device that is let in no longer, told by what it prints.

`python -m experiments.controls.story [--rounds 8] [--out FOLDER] [--shot PAGE.png]` provisions a cloud and
three devices on this machine, over TLS and with keys, each with a stream of the generated data in place of a
camera. Their world drifts while they run. The same held-out questions are asked of a device through its own
endpoint, as a person would, in four moments: as shipped, after the rounds, when the cloud has gone back to
version 0, and after it has learned again. Then one device is revoked. What the commands print is printed,
with the time since the start; `story.json` has the figures. The exit code is 1 where a device that went back
does not answer every question as it did as shipped, where learning brought nothing, or where the revoked
device is still let in. `--shot` saves the cloud's page as Chromium shows it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import pandas as pd
import typer

from cdc_flower.data.world import World, load_world
from cdc_flower.loopback import HOST
from cdc_flower.models.shared import load_shared
from cdc_flower.programs import free_port
from cdc_flower.results import write_json
from clients.device.ask import ask
from clients.device.settings import Bundle
from experiments.controls.deployed import Deployment, Device, deployment, said
from experiments.deploy import page
from experiments.deploy.provision import config_of
from experiments.run.processes import until
from strategies.accuracy import judged

DEVICES, REVOKED = 3, 2
SETTINGS: Mapping[str, Any] = {"run.checkpoint-every": 1, "data.items-per-domain": 100}
CLOUD = {"keep_versions": 100, "least": DEVICES, "period": 30.0}
"""Of the cloud: with time between two rounds, in which a device is asked."""
ASKED = 20  # questions of each domain that the device is asked, in each moment
AGAIN = 3  # rounds after going back
REST = AGAIN + 4  # rounds that devices have something for, after the first: one goes by in each moment
LONG = 600.0  # s, for a round, or for a version to be on a device
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Told:
    """Lines with the time since the start, printed and kept."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """One line."""
        passed = int(time.monotonic() - self._began)
        self.lines.append(f"{passed // 60:02d}:{passed % 60:02d} {line}")
        typer.echo(self.lines[-1])

    def ran(self, *arguments: str) -> None:
        """A `cdc-flower` command, what it prints, and its exit code where that is not 0."""
        self.say(f"$ cdc-flower {' '.join(arguments)}")
        found = said(arguments)
        shown = [line for line in (found.stdout + found.stderr).splitlines() if line.strip()]
        code = [f"(exit code {found.returncode})"] if found.returncode else []
        for line in (*shown, *code):
            self.lines.append(f"      {line.rstrip()}")
            typer.echo(self.lines[-1])


def questions(world: World) -> pd.DataFrame:
    """The same `ASKED` held-out rows of each domain."""
    return world.test.groupby("drift_domain", sort=True).head(ASKED).reset_index(drop=True)


class Asked:
    """Held-out questions, and a device that is asked them as a person would."""

    def __init__(self, fleet: Deployment, device: Device, told: Told) -> None:
        config = config_of(fleet.cloud_folder)
        world = load_world(config, load_shared(config.pair, config.data.name))
        self._world = replace(world, test=questions(world))
        self._bundle, self._fleet, self._told = Bundle.of(device.bundle), fleet, told
        self._pictures = _written(self._world, fleet.folder / "asked")
        self.right: dict[str, dict[str, float]] = {}

    def _version(self) -> int:
        """Of the adapter that the device answers with."""
        return int(httpx.get(f"http://{HOST}:{self._bundle.device.http_port}/health").json()["version"])

    def ask(self, moment: str, version: int) -> list[str]:
        """What is answered as soon as the device has a version; nothing of it becomes a sample."""
        until(lambda: self._version() == version, LONG, f"version {version}", self._fleet.programs)
        given = []
        for picture, question in zip(self._pictures, self._world.test["question"], strict=True):
            found = ask(self._bundle, [picture], str(question), keep=False)
            if found["version"] != version:
                raise RuntimeError(f"version {found['version']} answered, {version} was to be asked")
            given.append(found["answer"])
        self.right[moment] = judged(given, self._world).accuracy
        of = ", ".join(f"{name} {share * ASKED:.0f}" for name, share in self.right[moment].items())
        number = self._bundle.device.number
        self._told.say(f"device {number} {moment}, version {version}: right of {ASKED} each: {of}")
        return given


def _written(world: World, folder: Path) -> list[Path]:
    """The picture of each test item, as a file."""
    folder.mkdir()
    pack, split = world.tested
    pictures = {"train": pack.train_images, "test": pack.test_images}[split]
    files = [folder / str(row) for row in range(len(world.test))]
    for file, image in zip(files, world.test["image_id"], strict=True):
        file.write_bytes(pictures[image])
    return files


def browser() -> str | None:
    """The program that makes a picture, where there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def photograph(cloud: Path, file: Path) -> None:
    """Save the cloud's page as a picture."""
    program = browser()
    assert program is not None
    with tempfile.TemporaryDirectory() as own, page.shown(cloud, 0) as port:
        how = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={own}",
        ]
        size = ["--window-size=1000,860", f"--screenshot={file.absolute()}"]
        address = f"http://{HOST}:{port}/?still=1"
        subprocess.run([program, *how, *size, address], capture_output=True, timeout=120, check=True)  # noqa: S603


def story(folder: Path, rounds: int, picture: Path | None, told: Told) -> dict[str, Any]:
    """Let it happen; the figures of `story.json`."""
    with deployment(folder) as fleet:
        cloud, ports = str(fleet.cloud_folder), [free_port() for _ in range(DEVICES)]
        fleet.provision(DEVICES, {**SETTINGS, "run.rounds": rounds + REST}, CLOUD, ports=ports)
        told.ran("provision", "list", cloud)
        first, last = fleet.devices[0], fleet.devices[REVOKED]
        told.ran("device", "check", str(first.bundle))
        told.say("cloud up; on each device: device run, device node")
        fleet.start()
        asked = Asked(fleet, first, told)
        shipped = asked.ask("as shipped", 0)
        learnt = _learn(fleet, range(1, rounds + 1), told)
        asked.ask(f"after {rounds} rounds", learnt)
        told.ran("cloud", "rollback", cloud, "0")
        back = asked.ask("when the cloud has gone back", 0)
        now = fleet.round
        again = _learn(fleet, range(now + 1, now + AGAIN + 1), told)
        asked.ask(f"after {AGAIN} rounds more", again)
        told.ran("provision", "revoke", cloud, str(REVOKED))
        until(lambda: not last.node.runs, LONG, "the revoked device is let in no longer", fleet.programs)
        told.say(f"device node of device {REVOKED} ended with {last.node.code}: {_last(last.node.said())}")
        told.ran("cloud", "status", cloud)
        if picture is not None:
            photograph(fleet.cloud_folder, picture)
        drift = [sum(v for k, v in right.items() if k != "source") for right in asked.right.values()]
        return {
            "right": asked.right,
            "back_as_shipped": back == shipped,
            "revoked_code": last.node.code,
            "ok": back == shipped and drift[1] > drift[0] and last.node.code == 1,
        }


def _learn(fleet: Deployment, rounds: Iterable[int], told: Told) -> int:
    """Wait for rounds, each told; the version of the last."""
    version = 0
    for number in rounds:
        fleet.reach(number, LONG)
        at = fleet.status()
        version = int(at["version"])
        told.say(f"round {number}: version {version}, agreement {page.share(at.get('agreement'))}")
    return version


def _last(said: str) -> str:
    return (said.strip().splitlines() or ["nothing"])[-1]


def main(
    rounds: Annotated[int, typer.Option(min=2, max=14, help="Before the cloud goes back.")] = 8,
    out: Annotated[Path | None, typer.Option(help="For all of it, new; default: temporary.")] = None,
    shot: Annotated[Path | None, typer.Option(help="PNG of the cloud's page, by Chromium.")] = None,
) -> None:
    """Tell it."""
    folder = (out or Path(tempfile.mkdtemp(prefix="story-"))).absolute()
    if shot is not None and browser() is None:
        needed = f"no browser here; allowed: where one of {', '.join(BROWSERS)} is"
        raise typer.BadParameter(needed, param_hint="--shot")
    told = Told()
    found = story(folder, rounds, shot, told)
    write_json(folder / "story.json", {**found, "rounds": rounds, "lines": told.lines})
    raise typer.Exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    typer.run(main)
