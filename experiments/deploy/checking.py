"""Whether the settings of a cloud can be used, before anything of it is started.

They take torch to read, because methods bring settings of their own, and a cloud that is up has no use for
torch beside its ServerApp's. So another process reads them, and what was found good is remembered by its
digest: a cloud that is started again with the same settings starts at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cdc_flower.border import one_line
from cdc_flower.config import ConfigError
from cdc_flower.disk import replace
from experiments.deploy.settings import CloudConfig
from strategies.served.settings import FOLDER, SECTION, ServedConfig

FILE = ".checked"  # in the folder of the cloud
PATIENCE = 600.0  # s, on a machine that has much to do
CODE = """
import json, sys
from cdc_flower.config import ConfigError
from strategies.served.app import settings
try:
    settings(json.load(sys.stdin))
except ConfigError as err:
    sys.exit(str(err))
"""


def run_config(folder: Path, own: CloudConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The run config of the ServerApp of a cloud.

    Args:
        folder: of the cloud, absolute.
        own: its `cloud.toml`.
        settings: of the run.
    """
    mine = {f.name: getattr(own, f.name) for f in dataclasses.fields(ServedConfig)}  # type: ignore[arg-type]
    served = {f"{SECTION}{name.replace('_', '-')}": value for name, value in mine.items()}
    return {**settings, **served, FOLDER: str(folder)}


def check(folder: Path, run_config: Mapping[str, Any]) -> None:
    """Refuse what the ServerApp would refuse.

    Args:
        folder: of the cloud.
        run_config: see `run_config`.

    Raises:
        ConfigError: a setting that cannot be used, or that could not be read.
        DiskError: the disk does not take a file.
    """
    digest = _digest(run_config)
    if _remembered(folder) == digest:
        return
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", CODE],
            input=json.dumps(dict(run_config)),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"the settings in '{folder}' could not be read in {PATIENCE:g} s") from None
    if done.returncode:
        said = one_line(done.stderr.strip().rpartition("\n")[2])
        raise ConfigError(said or f"the settings in '{folder}' could not be read: code {done.returncode}")
    remember(folder, run_config)


def remember(folder: Path, run_config: Mapping[str, Any]) -> None:
    """Keep that these settings are good."""
    replace(folder / FILE, _digest(run_config).encode())


def _remembered(folder: Path) -> str:
    try:
        return (folder / FILE).read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def _digest(run_config: Mapping[str, Any]) -> str:
    """Of the settings and of the version that read them; where the folder is does not matter."""
    said = {key: value for key, value in run_config.items() if key != FOLDER}
    return hashlib.sha256(json.dumps([version("cdc-flower"), said], sort_keys=True).encode()).hexdigest()
