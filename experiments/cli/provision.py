"""The commands `cdc-flower provision ...`: the folder of a cloud, and the devices that belong to it."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from cdc_flower.config import ConfigError
from experiments.cli.checked import App, File, Folder, NewFolder
from experiments.cli.options import Data, Preset, Sets, checked, chosen_settings
from experiments.cli.saying import say
from experiments.cli.settings import Json

provision_app = App(
    no_args_is_help=True, help="Make a cloud and its devices: settings, keys, certificates, bundles."
)

Cloud = Annotated[
    Path, typer.Argument(metavar="CLOUD", click_type=Folder(), help="A folder that `provision init` made.")
]
Number = Annotated[
    int | None,
    typer.Option(
        min=0, max=10**7 - 1, help="Of the device; default: the next that is free.", show_default=False
    ),
]
Host = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        metavar="NAME",
        help="Name or address that devices call the cloud by; repeatable; default localhost and 127.0.0.1.",
    ),
]


@provision_app.command("init")
def init(
    cloud: Annotated[Path, typer.Argument(metavar="CLOUD", click_type=NewFolder(), help="Folder to make.")],
    data: Data = None,
    preset: Preset = None,
    settings: Annotated[
        Path | None, typer.Option(click_type=File(), help="TOML file of settings, instead of a preset.")
    ] = None,
    sets: Sets = None,
    host: Host = None,
    address: Annotated[
        str | None, typer.Option(help="That the cloud listens on; default 127.0.0.1.", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="That the cloud listens on; default 9443.", show_default=False),
    ] = None,
) -> None:
    """Make the folder of a cloud: settings, certificate authority, server certificate."""
    from experiments.deploy import keys, provision

    hosts = host or ["localhost", "127.0.0.1"]
    own = {key: value for key, value in (("address", address), ("port", port)) if value is not None}
    found = _settings(data, preset, settings, sets)
    provision.init(cloud, found, hosts, own)
    say(f"cloud: {cloud}; certificate for {', '.join(hosts)} until {keys.until(cloud):%Y-%m-%d}")


def _settings(
    data: str | None, preset: str | None, file: Path | None, sets: list[str] | None
) -> dict[str, Any]:
    """The settings of a run, from options."""
    from experiments.run.settings import assignments, flattened

    if file is None:
        return chosen_settings(data, preset, sets)
    if preset is not None:
        raise ConfigError("--settings and --preset; allowed: one of them")
    try:
        own = flattened(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValueError as err:
        raise ConfigError(f"settings '{file}': {err}") from None
    found = {**own, **chosen_settings(data, "none", sets), **assignments(sets or [])}
    checked(found)
    return found


@provision_app.command("device")
def device(
    cloud: Cloud,
    number: Number = None,
    name: Annotated[
        str | None, typer.Option(help="Of its bundle; default device-NUMBER.", show_default=False)
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:PATH",
            help="What it is asked: folder:PATH, camera:PATH or stream; default: `feed` in its bundle.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By which it calls the cloud; default: the cloud's first."),
    ] = None,
    models: Annotated[
        bool,
        typer.Option(
            "--models/--no-models",
            help="Whether the student's files are in the bundle, or only their digests.",
        ),
    ] = True,
    stream: Annotated[
        bool, typer.Option("--stream", help="With a stream of the cloud's data, for a demonstration.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of device.toml; repeatable."),
    ] = None,
) -> None:
    """Make a device: its number, its key, and the bundle that is copied to it."""
    from experiments.deploy import provision

    own = _changes(changes or [])
    if feed is not None:
        kind, _, path = feed.partition(":")
        own = {**own, "feed": kind, **({"feed-path": path} if path else {})}
    made, bundle = provision.device(cloud, number, name, host, own, models=models, stream=stream)
    say(f"device {made}: {bundle}.tar.gz")
    if stream:
        there = [file for file in (bundle / "stream").rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in there)
        say(
            f"{bundle}/stream: {len(there)} files, {size:,} bytes: the cloud's data as a simulation gives it "
            "to its devices, without labels, for a demonstration"
        )


def _changes(texts: list[str]) -> dict[str, Any]:
    """["http-port=8481"] -> {"http-port": "8481"}."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key.strip() in found:
            raise ConfigError(f"--set {text!r}; allowed: key=value, each key once")
        found[key.strip()] = value.strip()
    return found


@provision_app.command("revoke")
def revoke(
    cloud: Cloud, number: Annotated[int, typer.Argument(min=0, max=10**7 - 1, help="Of the device.")]
) -> None:
    """Revoke a device for good: its key opens nothing any more, and its number is not given again."""
    from experiments.deploy import provision

    found = provision.revoke(cloud, number)
    say(f"device {number} ({found.name}) is revoked")


@provision_app.command("rotate")
def rotate(
    cloud: Cloud,
    what: Annotated[str, typer.Argument(metavar="NUMBER|server", help="A device's number, or the server.")],
) -> None:
    """Make a new key: of a device, whose old one is revoked, or of the server, with a certificate."""
    from experiments.deploy import bundle, keys, provision

    if what == "server":
        provision.rotate_server(cloud)
        say(f"server certificate until {keys.until(cloud):%Y-%m-%d}; used from the next `cloud up` on")
        return
    if not (what.isascii() and what.isdigit() and len(what) < 9):
        raise ConfigError(f"'NUMBER|server': {what!r}; allowed: a device's number, or the word server")
    made = provision.rotate(cloud, int(what))
    if bundle.is_whole(made):
        own = " and ".join(f"{made.name}/{name}" for name in (keys.DEVICE_KEY, keys.DEVICE_PUBLIC))
        how = f"{made}.tar.gz has the new key; where it was copied already, unpack {own} alone over it"
    else:
        how = f"unpack {made}.tar.gz over its bundle"
    say(f"device {what}: {how}")


@provision_app.command("list")
def show_list(cloud: Cloud, as_json: Json = False) -> None:
    """List the devices of a cloud."""
    from experiments.deploy.settings import cloud as read
    from experiments.report.tables import Fitted, show
    from strategies.served import devices

    read(cloud)
    known = devices.read(cloud)
    if as_json:
        rows = [{"number": n, **dataclasses.asdict(one)} for n, one in known.items()]
        typer.echo(json.dumps(rows, indent=1))
        return
    heads = ("number", "name", "status", "node", "key", "when")
    rows = [
        (str(n), d.name, d.status, "" if d.node_id is None else str(d.node_id), d.fingerprint, d.when)
        for n, d in known.items()
    ]
    show(Fitted(heads, rows, ("node", "when", "key"), wraps=("name",), left=heads))


@provision_app.command("files")
def files(
    out: Annotated[Path, typer.Argument(click_type=NewFolder(), help="Folder to write.")],
    venv: Annotated[
        str,
        typer.Option(
            help="Where cdc_flower is installed on that machine; default /opt/cdc-flower/.venv.",
            show_default=False,
        ),
    ] = "/opt/cdc-flower/.venv",
    home: Annotated[
        str,
        typer.Option(
            help="Folder of cloud/ and of bundles; default /var/lib/cdc-flower.", show_default=False
        ),
    ] = "/var/lib/cdc-flower",
    user: Annotated[
        str, typer.Option(help="Whose processes they are; default cdc-flower.", show_default=False)
    ] = "cdc-flower",
) -> None:
    """Write what starts a deployment with the machine: systemd units, Dockerfiles, a compose file."""
    from experiments.deploy.written import write

    for path in write(out, venv, home, user):
        say(str(path))
