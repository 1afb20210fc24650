"""A network namespace for each device, with a link of its own to this machine that `tc` shapes.

Linux alone, as root. The namespace of a device has one interface; its other end is here, with an address that
the cloud can be reached by. Rates are those of the kernel's token bucket (tbf) on either end. Delay and
outages are those of `link`, which listens on this end and forwards to the cloud on loopback: the kernel's
`netem` is not everywhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BURST = 3000  # bytes that pass at once: two packets
QUEUE = 1.0  # s, that a packet may wait


@dataclass(frozen=True)
class Space:
    """The namespace of a device.

    Attributes:
        name: of it.
        here: address of this machine, as the device sees it.
        there: of the device.
        ends: names of the interfaces, here and there.
    """

    name: str
    here: str
    there: str
    ends: tuple[str, str]

    def inside(self, command: Sequence[str]) -> list[str]:
        """A command, run in the namespace."""
        return ["ip", "netns", "exec", self.name, *command]

    def shape(self, up: float, down: float) -> None:
        """Rates from and to the device [bytes/s]; 0 = no limit."""
        for end, rate, where in ((self.ends[1], up, self.inside), (self.ends[0], down, list)):
            subprocess.run(  # noqa: S603
                where(["tc", "qdisc", "del", "dev", end, "root"]), capture_output=True, check=False
            )
            if rate:
                _run(where(_shaped(end, rate)))

    def bytes(self) -> tuple[int, int]:
        """What has come from the device and gone to it, with all headers."""
        counts = Path("/sys/class/net", self.ends[0], "statistics")
        return tuple(int((counts / f"{way}_bytes").read_text()) for way in ("rx", "tx"))  # type: ignore[return-value]


def possible() -> str:
    """Why there can be no namespaces here; "" = there can."""
    if not shutil.which("ip") or not shutil.which("tc"):
        return "no `ip` and `tc` (package iproute2)"
    if os.geteuid():
        return "it takes root"
    name = f"try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if tried.returncode:
        return tried.stderr.strip()
    _ip("netns", "delete", name)
    return ""


@contextmanager
def spaces(count: int, up: float = 0.0, down: float = 0.0) -> Iterator[list[Space]]:
    """Namespaces for the length of a `with` block.

    Args:
        count: of devices.
        up, down: bytes/s from and to each; 0 = no limit.
    """
    made = list[Space]()
    try:
        for number in range(count):
            name, net = f"cdc-{os.getpid()}-{number}", f"10.{77 + os.getpid() % 100}.{number}"
            ends = f"c{os.getpid()}h{number}", f"c{os.getpid()}d{number}"
            space = Space(name, f"{net}.1", f"{net}.2", ends)
            _ip("netns", "add", name)
            made.append(space)
            _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            _ip("link", "set", ends[1], "netns", name)
            _ip("addr", "add", f"{space.here}/30", "dev", ends[0])
            _ip("link", "set", ends[0], "up")
            _run(space.inside(["ip", "addr", "add", f"{space.there}/30", "dev", ends[1]]))
            _run(space.inside(["ip", "link", "set", ends[1], "up"]))
            _run(space.inside(["ip", "link", "set", "lo", "up"]))
            space.shape(up, down)
        yield made
    finally:
        for space in made:
            subprocess.run(["ip", "link", "delete", space.ends[0]], capture_output=True, check=False)  # noqa: S603, S607
            subprocess.run(["ip", "netns", "delete", space.name], capture_output=True, check=False)  # noqa: S603, S607


def _shaped(interface: str, rate: float) -> list[str]:
    bits = f"{max(1, round(8 * rate))}bit"
    how = ["tbf", "rate", bits, "burst", str(BURST), "latency", f"{QUEUE:g}s"]
    return ["tc", "qdisc", "add", "dev", interface, "root", *how]


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
