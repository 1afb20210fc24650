"""The commands `cdc-flower device ...`: what runs on a real device."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.checked import App, File, Folder
from experiments.cli.saying import say

device_app = App(no_args_is_help=True, help="Run a real device: what `provision device` made, copied to it.")

BundleFolder = Annotated[
    Path, typer.Argument(metavar="BUNDLE", click_type=Folder(), help="The folder of a device.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


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
    """Run the agent of a device: answer its feed, and do the cloud's orders. Ctrl-C ends it soon."""
    from clients.device import ending

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, datefmt="%Y-%m-%d %H:%M:%S")
    for loud in ("httpx", "transformers", "bitsandbytes", "flwr"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    stop = threading.Event()
    with ending.asked(stop):
        from clients.device import start  # takes seconds
        from clients.device.http import endpoint

        with start.opened(bundle) as agent, endpoint(agent) as port:
            say(
                f"{agent.bundle.about}: {agent.student.shared.name}, version {agent.adapter.version}, "
                f"{f'asked on 127.0.0.1:{port}, ' if port else ''}ready"
            )
            agent.run(stop, once)
    say(f"{agent.bundle.about}: ended after {agent.done.orders} order{'s' * (agent.done.orders != 1)}")


@device_app.command("check")
def check(bundle: BundleFolder) -> None:
    """Look whether a device can run: settings, keys, models, database, disk, and its first product."""
    from clients.device import check as checking

    wrong = 0
    for about, why in checking.every(bundle):
        say(f"{'ok  ' if not why else 'FAIL'} {about}{f': {why}' if why else ''}")
        wrong += bool(why)
    if wrong:
        raise typer.Exit(1)


@device_app.command("ask")
def ask(
    bundle: BundleFolder,
    image: Annotated[
        list[Path],
        typer.Option(
            click_type=File(),
            help="A picture: PNG, JPEG, WEBP, GIF or BMP; repeatable: the frames of a clip.",
        ),
    ],
    question: Annotated[str, typer.Option(help="Words.")],
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="It may become a sample that is sent.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Ask the agent that runs on this machine a question about a picture or a clip."""
    from clients.device.ask import ask as asking
    from clients.device.settings import Bundle

    said = asking(Bundle.of(bundle), image, question, keep=keep)
    if as_json:
        typer.echo(json.dumps(said))
        return
    words = said["answer"] or "(no words)"
    say(f"{words} (version {said['version']}, uncertainty {said['uncertainty']:.3g} nats)")


@device_app.command("status")
def status(bundle: BundleFolder, as_json: Json = False) -> None:
    """Say what a device is and has, whether its agent runs or not."""
    from clients.device.settings import Bundle
    from clients.device.status import status as read

    opened = Bundle.of(bundle)
    said = read(opened)
    if as_json:
        typer.echo(json.dumps(said, indent=1))
        return
    samples = said["samples"]
    spool = "no samples yet"
    if samples:
        spool = (
            f"{samples['waiting']} samples wait, {samples['out']} are out ({samples['bytes']:,} bytes); "
            f"of {samples['came']} that came {samples['taken']} were taken and {samples['dropped']} dropped"
        )
    say(f"{opened.about}: agent {'runs' if said['running'] else 'does not run'}, version {said['version']}")
    say(spool)
    for about, what in (
        ("order that waits: round", said["order"]),
        ("last order failed", said["error"]),
        ("samples are held back", said["held_back"]),
    ):
        if what is not None:
            say(f"{about}: {what}")


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
    """Run Flower's SuperNode for a device; while its cloud is away it waits, until it is told to end."""
    import signal
    import threading

    from clients.device.keeping import Keeper
    from clients.device.node import HOME, command
    from clients.device.settings import Bundle

    opened, stop = Bundle.of(bundle), threading.Event()
    command(opened, port, insecure)  # what cannot be used is refused before anything is held
    if insecure:
        say("warning: --insecure: whoever is on the way reads and changes all that is sent", err=True)
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        Keeper(
            lambda: command(opened, port, insecure),
            opened.folder / HOME,
            opened.device.superlink,
            lambda line: print(line, flush=True),  # noqa: T201  Flower's own, and some bytes are not for a console
            stop,
        ).keep()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
