"""The SuperNode of a device: Flower's, with the keys and the place of its cloud from the bundle.

It starts `clients.device.mover` for every message. `clients.device.supernode` is its process, and
`clients.device.keeping` starts it again when it ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cdc_flower.config import ConfigError
from cdc_flower.programs import environment, free_port
from clients.device.models import CA
from clients.device.settings import Bundle

KEY, HOME = "device.key", "supernode"


def command(bundle: Bundle, port: int = 0, insecure: bool = False) -> tuple[list[str], dict[str, str]]:
    """What to execute, and what is added to the environment.

    Args:
        bundle: of the device.
        port: on loopback, for the processes that it starts; 0 = one that is free now.
        insecure: without TLS and key, for a cloud that has none.

    Raises:
        ConfigError: a file of the bundle is missing, or others may read its key.
    """
    folder = bundle.folder
    secure = ["--root-certificates", str(folder / CA), "--auth-supernode-private-key", str(folder / KEY)]
    if not insecure:
        _check(folder)
    if set("'\"\\") & set(str(folder)):
        raise ConfigError(f"'{folder}': Flower reads no quotes in a path; allowed: a folder without them")
    home = folder / HOME
    home.mkdir(mode=0o700, exist_ok=True)
    return [
        *(sys.executable, "-P", "-m", "clients.device.supernode"),
        *(["--insecure"] if insecure else secure),
        *("--superlink", bundle.device.superlink),
        *("--port", str(port or free_port())),
        *("--node-config", f"bundle={json.dumps(str(folder), ensure_ascii=False)}"),
    ], environment(home)


def _check(folder: Path) -> None:
    for name in (CA, KEY):
        if not (folder / name).is_file():
            raise ConfigError(
                f"'{folder / name}' is not there; allowed: a bundle that `provision device` made"
            )
    mode = (folder / KEY).stat().st_mode & 0o777
    if mode & 0o077:
        raise ConfigError(
            f"'{folder / KEY}' has mode {mode:o}, so that others may read it; allowed: mode 600 (chmod 600)"
        )
