"""The folder of a cloud, and the devices in it: made, given new keys, revoked.

A device is a number, and a number belongs to one key at a time. `run.devices` of the cloud's settings is how
many numbers there may be: which of them are made, and when, is free. What is done to keys here stands in
`devices.json`; the SuperLink learns of it from `cdc-flower cloud up`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdc_flower.config import Config, ConfigError, flat, parse
from cdc_flower.disk import writing
from cdc_flower.plugins import METHODS, load
from cdc_flower.setting import checked, written
from clients.device.settings import DeviceConfig
from experiments.deploy import bundle, checking, keys
from experiments.deploy.settings import FILE, CloudConfig, cloud
from strategies.served import devices
from strategies.served.devices import Device, Key

SETTINGS = "settings.json"
PATHS = ("data.pack", "pair.folder", "pair.teacher", "pair.student", "pair.token-cache")


def init(folder: Path, settings: Mapping[str, Any], hosts: Sequence[str], own: Mapping[str, Any]) -> None:
    """Make the folder of a cloud: its settings, those of the run, its authority, its server's certificate.

    Args:
        folder: empty, or not there.
        settings: of the run, flat.
        hosts: names and addresses that devices call the cloud by.
        own: others of `cloud.toml`.

    Raises:
        ConfigError: something is in the folder, or a setting cannot be used.
    """
    from strategies.served import app  # torch, which nothing else here needs

    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"folder '{folder}' is not empty; allowed: an empty one, or none")
    hosts = keys.checked_hosts(hosts)
    about = checked(CloudConfig, {**own, "hosts": ",".join(hosts)}, lambda name: name.replace("_", "-"))
    config = parse({**settings, "run.receipts": True})
    if load(METHODS, config.run.method).traits.labels:
        raise ConfigError(
            f"setting 'run.method' = {config.run.method!r}: its devices learn from labels, which real ones "
            "do not have; allowed: a method without the trait `labels`"
        )
    folder = folder.absolute()
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        try:
            keys.authority(part)
            keys.server(part, hosts)
            keys.public(part / FILE, written(about).encode())
            values = _absolute(flat(config))
            keys.public(part / SETTINGS, f"{json.dumps(values, indent=1)}\n".encode())
            served = checking.run_config(part, about, values)
            app.settings(served)
            checking.remember(part, served)
            keys.public(part / devices.FILE, b"{}\n")
            (part / "bundles").mkdir(mode=0o700)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def config_of(folder: Path) -> Config:
    """The settings of the run of a cloud.

    Raises:
        ConfigError: none there, or settings that cannot be used.
    """
    return parse(settings_of(folder))


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of the run of a cloud as they are written, unchecked.

    Raises:
        ConfigError: there are none.
    """
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"'{folder / SETTINGS}': {err.strerror}; allowed: the folder of a cloud") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"'{folder / SETTINGS}' is no JSON object; allowed: settings, stage.key -> value")
    return found


def device(
    folder: Path,
    number: int | None = None,
    name: str | None = None,
    host: str | None = None,
    own: Mapping[str, Any] | None = None,
    *,
    models: bool = True,
    stream: bool = False,
) -> tuple[int, Path]:
    """Make a device of a cloud, and its bundle.

    Args:
        folder: of the cloud.
        number: of the device; None = the least that nobody has.
        name: of its bundle; None = device-NUMBER.
        host: the name by which it calls the cloud; None = the first of `cloud.toml`.
        own: others of `device.toml`.
        models: whether the files of the pair are in the bundle.
        stream: whether a published stream of the cloud's data is, for a demonstration.

    Returns:
        Its number and its bundle.

    Raises:
        ConfigError: a number or name that is taken, or that there cannot be.
    """
    about, config = cloud(folder), config_of(folder)
    host = host or about.named[0]
    own = {"feed": "stream" if stream else "folder", **(own or {})}
    _settings(own)
    if host not in about.named:
        raise ConfigError(f"host {host!r}; allowed: one that the server's certificate is for: {about.hosts}")
    _free(devices.read(folder), number, name, config.run.devices)  # before anything is computed
    parts, files, longest = bundle.device_parts(config, stream)
    with devices.changing(folder) as known:
        number, name = _free(known, number, name, config.run.devices)
        at = f"[{host}]:{about.port}" if ":" in host else f"{host}:{about.port}"
        values = {"number": number, "name": name, "superlink": at, "longest_question": longest, **own}
        wanted = _settings(values)
        feed = "" if stream or wanted.feed_path or wanted.feed == "stream" else "feed"
        line = bundle.make(folder, name, written(wanted), flat(config), parts, files, models, feed)
        known[number] = Device(line, keys.fingerprint(line), None, devices.now(), name)
    return number, folder / "bundles" / name


def revoke(folder: Path, number: int) -> Device:
    """Take a device's number from it, for good: the cloud takes nothing from it any more.

    Raises:
        ConfigError: no such device.
    """
    cloud(folder)
    with devices.changing(folder) as known:
        _there(known, number)
        known[number] = dataclasses.replace(known[number], status="revoked", when=devices.now())
        _forget(folder, known[number].name)
        return known[number]


def rotate(folder: Path, number: int) -> Path:
    """Give a device another key; the old one is revoked at once.

    Returns:
        A bundle with the new key: the whole one where it still lies there, else the key alone, to be
        unpacked over the device's.

    Raises:
        ConfigError: no such device, or it is revoked.
    """
    cloud(folder)
    with devices.changing(folder) as known:
        was = _there(known, number)
        if was.status == "revoked":
            raise ConfigError(
                f"device {number} is revoked; allowed: another number, made by `provision device`"
            )
        line = bundle.new_key(folder, was.name)
        before = Key(was.public_key, was.fingerprint, was.node_id, was.when)
        old = (*was.old, before) if was.status == "registered" else was.old
        known[number] = Device(line, keys.fingerprint(line), None, devices.now(), was.name, "made", old)
        return folder / "bundles" / was.name


def rotate_server(folder: Path) -> None:
    """Another key and certificate for the server, from the same authority, for its next start.

    Raises:
        ConfigError: no cloud there, or the authority's key is elsewhere.
    """
    about = cloud(folder)
    with writing(folder), tempfile.TemporaryDirectory(prefix=".server.", dir=folder) as part:
        shutil.copytree(folder / "ca", Path(part, "ca"))
        keys.server(Path(part), keys.checked_hosts(about.named))
        keys.check_server(Path(part))
        for file in (keys.SERVER_KEY, keys.SERVER_CERT):
            Path(part, file).replace(folder / file)


def _free(known: Mapping[int, Device], number: int | None, name: str | None, most: int) -> tuple[int, str]:
    """The number and name of a new device."""
    if number is None:
        number = next(n for n in range(len(known) + 1) if n not in known)
    if number >= most:
        raise ConfigError(
            f"device {number}: setting 'run.devices' = {most} in '{SETTINGS}' of the cloud; allowed: up to "
            f"{most - 1}, or a greater setting there"
        )
    if number in known:
        raise ConfigError(
            f"device {number} is there, {known[number].status}; allowed: a number that none has had"
        )
    name = name or f"device-{number}"
    if not re.fullmatch(devices.NAME, name) or name.endswith(bundle.ARCHIVE):
        raise ConfigError(
            f"name {name!r}; allowed: up to 40 letters, digits, '.', '_' and '-', a letter or digit first "
            f"and no '{bundle.ARCHIVE}' last"
        )
    if taken := [n for n, one in known.items() if one.name == name]:
        raise ConfigError(f"name {name!r} is that of device {taken[0]}; allowed: another")
    return number, name


def _there(known: Mapping[int, Device], number: int) -> Device:
    if number not in known:
        numbers = ", ".join(map(str, list(known)[:20])) or "none is there"
        raise ConfigError(f"no device {number}; allowed: {numbers}")
    return known[number]


def _forget(folder: Path, name: str) -> None:
    """Remove a bundle, whose key nobody needs any more."""
    shutil.rmtree(folder / "bundles" / name, ignore_errors=True)
    (folder / "bundles" / f"{name}{bundle.ARCHIVE}").unlink(missing_ok=True)


def _absolute(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose folders are found from anywhere."""
    there = {key: Path(str(settings[key])).expanduser() for key in PATHS if settings[key]}
    return {**settings, **{key: str(path.absolute()) for key, path in there.items() if path.is_dir()}}


def _settings(values: Mapping[str, Any]) -> DeviceConfig:
    """What `device.toml` says.

    Raises:
        ConfigError: a setting that a device does not have, or a value that is not allowed.
    """
    known = {f.name.replace("_", "-"): f.name for f in dataclasses.fields(DeviceConfig)}
    for key in values:
        if key.replace("_", "-") not in known:
            raise ConfigError(f"unknown setting '{key}' of a device; allowed: {', '.join(known)}")
    own = {known[key.replace("_", "-")]: value for key, value in values.items()}
    return checked(DeviceConfig, own, lambda name: name.replace("_", "-"))
