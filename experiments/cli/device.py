"""The commands `cdc-flower device ...`: what runs on a real device."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.checked import App, Folder

device_app = App(no_args_is_help=True, help="Run a real device: what `provision device` made, copied to it.")

BundleFolder = Annotated[
    Path, typer.Argument(metavar="BUNDLE", click_type=Folder(), help="The folder of a device.")
]


@device_app.command("run")
def run(
    bundle: BundleFolder,
    once: Annotated[
        int,
        typer.Option(
            min=0, max=10**6, help="End after so many orders; default: at Ctrl-C.", show_default=False
        ),
    ] = 0,
) -> None:
    """Run the agent of a device: answer its feed, and do the cloud's orders. Ctrl-C ends it cleanly."""
    from clients.device import start

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, datefmt="%Y-%m-%d %H:%M:%S")
    for loud in ("httpx", "transformers", "bitsandbytes", "flwr"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    stop = threading.Event()
    with start.opened(bundle) as agent:
        before = [signal.signal(name, lambda *_: stop.set()) for name in (signal.SIGINT, signal.SIGTERM)]
        try:
            typer.echo(
                f"{agent.bundle.about}: {agent.student.shared.name}, version {agent.adapter.version}, ready"
            )
            agent.run(stop, once)
        finally:
            for name, old in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
                signal.signal(name, old)
    typer.echo(f"{agent.bundle.about}: ended after {agent.done.orders} orders")


@device_app.command("check")
def check(bundle: BundleFolder) -> None:
    """Look whether a device can run: settings, keys, models, database, disk, and its first product."""
    from clients.device import check as checking

    wrong = 0
    for about, why in checking.every(bundle):
        typer.echo(f"{'ok  ' if not why else 'FAIL'} {about}{f': {why}' if why else ''}")
        wrong += bool(why)
    if wrong:
        raise typer.Exit(1)


@device_app.command("node")
def node(
    bundle: BundleFolder,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="On loopback, for its own processes; 0 (default) = one that is free.",
            show_default=False,
        ),
    ] = 0,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Without TLS and key, for a cloud that was started so.")
    ] = False,
) -> None:
    """Run Flower's SuperNode for a device, until it ends; start it again when it does."""
    from clients.device.node import command, execute
    from clients.device.settings import Bundle

    if insecure:
        typer.echo("warning: --insecure: whoever is on the way reads and changes all that is sent", err=True)
    execute(*command(Bundle.of(bundle), port, insecure))
