"""How much memory a call takes, in a process in which other threads allocate, too."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from typing import Any


def peak(call: Callable[[], Any], *refused: type[BaseException], calls: int = 2) -> int:
    """Bytes that Python and numpy held at most during a call, beyond what they held before.

    The least of some calls: what a first call loads, and what another thread allocates meanwhile, is not the
    call's. Exceptions `refused` may come.
    """
    found = []
    for _ in range(calls):
        tracemalloc.start()
        try:
            with contextlib.suppress(*refused):
                call()
            found.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(found)
