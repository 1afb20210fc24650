"""The commands `cdc-flower device ...`: what runs on a real device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.checked import App, Folder

device_app = App(no_args_is_help=True, help="Run a real device: what `provision device` made, copied to it.")

BundleFolder = Annotated[
    Path, typer.Argument(metavar="BUNDLE", click_type=Folder(), help="The folder of a device.")
]


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
