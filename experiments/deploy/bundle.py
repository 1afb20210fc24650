"""The bundle of a device: a folder, and an archive of it, with all that a device needs and no more.

Nothing of the teacher, no label, and of the cloud's keys only the certificate of its authority. The archive
keeps modes: the device's private key is readable by its owner alone.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cdc_flower.config import Config
from cdc_flower.disk import whole, writing
from clients.device.models import CA, FILE, FOLDER, described
from experiments.deploy import keys

TOML, SETTINGS, STREAM = "device.toml", "settings.json", "stream"
ARCHIVE = ".tar.gz"  # behind the name of a bundle
Parts = Mapping[str, tuple[str, Mapping[str, Path]]]
"""Setting -> the name of its folder, and name in it -> file."""


def device_parts(config: Config, stream: bool) -> tuple[Parts, Mapping[str, Path], int]:
    """The files that a device reads of the pair; those of a stream, which is published here; and the ids of
    the longest question that the cloud takes, 0 where the stream says it.
    """
    from strategies.run import prepare, read_by_devices

    if stream:
        prepare(config)
        parts = dict(read_by_devices(config))
        return parts, parts.pop("pair.token-cache")[1], 0
    from cdc_flower.data.source import longest_question
    from cdc_flower.models.folders import device_files

    # what the cloud would refuse is refused now, and a transform that it will want is in what is signed; this
    # machine need not have the cloud's GPU
    setup = prepare(replace(config, run=replace(config.run, device="cpu")), streams=False)
    return device_files(config.pair, config.data.name), {}, longest_question(setup.shared, setup.world)


def make(
    cloud: Path,
    name: str,
    toml: str,
    settings: Mapping[str, Any],
    parts: Parts,
    files: Mapping[str, Path],
    models: bool,
    feed: str = "",
) -> str:
    """Make a bundle, whole or not at all.

    Args:
        cloud: its folder.
        name: of the bundle.
        toml: what `device.toml` says.
        settings: of the run.
        parts: see `device_parts`.
        files: of the stream; {} = none.
        models: whether the files of the pair are in it, or only their digests.
        feed: an empty folder that is made for the device's feed; "" = none.

    Returns:
        The device's public key.
    """
    with _folder(cloud / "bundles" / name) as part:
        line = keys.device(part, name)
        keys.public(part / TOML, toml.encode())
        keys.public(part / SETTINGS, json.dumps(dict(settings), indent=1).encode() + b"\n")
        shutil.copyfile(cloud / keys.CA_CERT, part / CA)
        about = keys.signed(cloud, described(parts))
        keys.public(part / FILE, json.dumps(about, indent=1).encode() + b"\n")
        for folder, its in parts.values():
            _copied(its, part / FOLDER / folder) if models else (part / FOLDER / folder).mkdir(parents=True)
        _copied(files, part / STREAM)
        if feed:
            (part / feed).mkdir()
    archive(cloud / "bundles" / name)
    return line


def new_key(cloud: Path, name: str) -> str:
    """Make another key for a device. Returns the public key.

    A whole bundle that still lies there stays whole and has the new key, because nobody may have copied it
    yet. Else there is a bundle with the key and the authority's certificate alone, to unpack over the
    device's.
    """
    folder = cloud / "bundles" / name
    if is_whole(folder):
        with writing(folder), tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as part:
            line = keys.device(Path(part), name)
            for file in (keys.DEVICE_KEY, keys.DEVICE_PUBLIC):
                Path(part, file).replace(folder / file)
    else:
        with _folder(folder) as part:
            line = keys.device(part, name)
            shutil.copyfile(cloud / keys.CA_CERT, part / CA)
    archive(folder)
    return line


def is_whole(folder: Path) -> bool:
    """Whether a bundle has more in it than a key."""
    return (folder / FILE).is_file()


def archive(folder: Path) -> Path:
    """Pack a folder, as `NAME.tar.gz` beside it, for its owner alone; who unpacks it owns the files."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    path = folder.with_name(f"{folder.name}{ARCHIVE}")
    with writing(path), whole(path) as file:
        os.fchmod(file.fileno(), 0o600)
        with tarfile.open(fileobj=file, mode="w:gz") as packed:
            packed.add(folder, folder.name, filter=plain)
    return path


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when everything is in it."""
    with writing(path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))  # mode 0700
        try:
            yield part
            shutil.rmtree(path, ignore_errors=True)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _copied(files: Mapping[str, Path], folder: Path) -> None:
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
