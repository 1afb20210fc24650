"""Flower's own programs on this machine: where they are, what they may say to whom, a port for them.

No Flower here: these are settings of processes.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

BINARIES = Path(sys.executable).parent
"""Where this environment has its commands."""
OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Variables with which Flower tells nobody anything and installs nothing."""


def environment(home: Path) -> dict[str, str]:
    """Variables of a program of Flower's, beside those of this process.

    Args:
        home: where Flower keeps its files.
    """
    return {**OFFLINE, "FLWR_HOME": str(home), "PATH": command_path()}


def command_path() -> str:
    """The variable PATH with which the commands of this environment are found first."""
    return f"{BINARIES}{os.pathsep}{os.environ.get('PATH', '')}"


def free_port() -> int:
    """A port of this host that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
