"""What this machine has free for a run: memory, within the limit of its control group, and cores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """What is free.

    Attributes:
        ram: bytes that are available, and free swap.
        vram: bytes free on the first GPU; 0 without one.
    """

    ram: float
    vram: float = 0.0

    @classmethod
    def here(cls, gpu: bool = True) -> Machine:
        """This one, within the limit of its control group; its GPU is asked only with `gpu`."""
        import torch  # here: who asks for cores alone has not loaded it yet

        found = psutil.virtual_memory()
        free = min([found.available, *(room for room in map(_room, LIMITS) if room)])
        vram = torch.cuda.mem_get_info()[0] if gpu and torch.cuda.is_available() else 0
        return cls(free + psutil.swap_memory().free, vram)


def _room(limit: Path) -> int:
    """Bytes that a control group still has; 0 where it has no limit."""
    used = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}[limit.name]
    cached = 0
    try:
        most = int(limit.read_text())
        now = int(limit.with_name(used).read_text())
        for line in limit.with_name("memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            cached += int(value) if name in ("inactive_file", "total_inactive_file") else 0
    except (OSError, ValueError):  # "max", or no such group
        return 0
    return max(1, most - now + cached)


def cores() -> int:
    """Of this host, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
