"""Which processor this is: a run has other bits on another one, for which libraries choose other kernels.

A virtual machine may hide its name ("Intel(R) Xeon(R) Processor"), so the design's numbers are said, too.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
NAMES = ("model name", "Model")  # of x86, and of boards with ARM
NUMBERS = ("cpu family", "model", "stepping", "CPU part")


@lru_cache(maxsize=1)
def processor() -> str:
    """Name and numbers of the first core, such as "AMD EPYC 7B13, cpu family 25, model 1, stepping 0"; its
    architecture where the system does not say.
    """
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    pairs = ((key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines))
    said: dict[str, str] = {}
    for key, value in pairs:
        said.setdefault(key, value)
    name = next((said[key] for key in NAMES if said.get(key)), platform.machine())
    return ", ".join([name, *(f"{key} {said[key]}" for key in NUMBERS if said.get(key))])
