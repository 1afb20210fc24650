"""The commands `cdc-flower cloud ...`: a cloud that devices come to."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_flower.config import ConfigError
from experiments.cli.checked import App, Folder, goes_on
from experiments.cli.saying import say
from experiments.cli.settings import Json

if TYPE_CHECKING:
    from experiments.deploy.view import View

cloud_app = App(
    no_args_is_help=True, help="Run a cloud that `cdc-flower provision` made, look at it, take it back."
)
Cloud = Annotated[
    Path, typer.Argument(metavar="CLOUD", click_type=Folder(), help="A folder that `provision init` made.")
]


@cloud_app.command("up")
def up(cloud: Cloud) -> None:
    """Run a cloud until it is told to end: SuperLink, rounds, page. It goes on where it was."""
    from experiments.deploy import cloud as deployed

    stop, code = threading.Event(), [0]

    def end(number: int, frame: Any) -> None:
        code[0] = 130 if number == signal.SIGINT else 0
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        deployed.up(cloud, stop, lambda text: say(f"{time.strftime('%H:%M:%S')} {text}"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code[0]:
        with goes_on(lambda: f"`cdc-flower cloud up {cloud}` goes on where it was"):
            raise KeyboardInterrupt


@cloud_app.command("status")
def status(cloud: Cloud, as_json: Json = False) -> None:
    """Say what a cloud last wrote of itself: round, version, devices."""
    from cdc_flower.lock import taken
    from experiments.deploy.page import ago, count, share, size
    from experiments.deploy.settings import cloud as checked
    from experiments.deploy.view import read
    from experiments.report.tables import Fitted, show

    checked(cloud)
    now = time.time()
    view, runs = read(cloud, now), taken(cloud)
    if as_json:
        typer.echo(json.dumps({"up": runs, **dataclasses.asdict(view)}, indent=1))
        return
    say(f"{'up' if runs else f'not up (cdc-flower cloud up {cloud})'}; {view.state or 'nothing yet'}")
    if view.problem:
        say(view.problem)
    say(
        f"round {count(view.round)}, version {count(view.version)}, agreement {share(view.agreement)}, "
        f"guard {share(view.guard)}"
    )
    rows = [
        (
            str(one.number),
            one.name,
            one.status,
            "yes" if one.here else "no",
            ago(one.seen, now),
            count(one.version),
            count(one.samples),
            size(one.up),
            size(one.down),
            count(one.refused),
        )
        for one in view.devices
    ]
    heads = ("device", "name", "status", "here", "seen", "version", "samples", "up", "down", "refused")
    show(Fitted(heads, rows, ("refused", "samples", "here"), wraps=("name",), left=heads[2:5]))
    for line in _beside(view):
        say(line)


def _beside(view: View) -> Iterator[str]:
    """What else there is to say of a cloud: who is no device, where it can go back to, and how that went."""
    for node, why in view.strangers:
        yield f"node {node} is no device: {why}"
    if view.kept:
        yield f"versions to go back to (cloud rollback): {', '.join(map(str, view.kept))}"
    if (back := view.rollback) is not None:
        how = f"was refused: {back.refused}" if back.refused else f"was done after round {back.round}"
        yield f"the last rollback, to version {back.version}, {how}"


@cloud_app.command("rollback")
def rollback(
    cloud: Cloud,
    version: Annotated[int, typer.Argument(min=0, max=2**32 - 1, help="That every device is to have.")],
) -> None:
    """Take every device back to a version, exactly, before the next round; learning goes on from there."""
    from experiments.deploy.settings import cloud as checked
    from strategies.served import versions
    from strategies.served.settings import RUN

    checked(cloud)
    kept = versions.kept(cloud / RUN)
    if version not in kept:
        have = ", ".join(map(str, kept)) or "none, the cloud has not run"
        raise ConfigError(f"version {version} is not kept; allowed: {have}")
    versions.request(cloud, version)
    say(f"version {version} is asked for; the cloud goes back before its next round")


@cloud_app.command("page")
def page(
    cloud: Cloud, port: Annotated[int, typer.Option(min=1, max=65535, help="On loopback.")] = 9480
) -> None:
    """Show the page of a cloud, whether it is up or not."""
    from experiments.deploy import page as pages
    from experiments.deploy.settings import cloud as checked

    checked(cloud)
    say(f"page: http://127.0.0.1:{port}")
    pages.serve(cloud, port)
