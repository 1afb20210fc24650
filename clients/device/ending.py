"""How an agent is ended by Ctrl-C or SIGTERM: after what it is at, or within seconds where that takes longer.

Whatever an agent is at, its power may fail, and nothing is lost: samples, replies and what is known of the
feed are written in transactions, adapters whole or not at all. So one that is asked to end, and is busy with
a long answer or order, ends as if its power failed, only that it says so. A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 5.0  # s, for what it is at
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave() -> None:
    """End this process now, with a line."""
    os.write(1, b"ended in the middle of what it was at, which is done again at the next start\n")
    os._exit(0)


@contextmanager
def asked(stop: threading.Event, leave: Callable[[], Any] = leave, grace: float = GRACE) -> Iterator[None]:
    """Within the `with` block, which the main thread enters, signals set `stop`.

    Args:
        stop: the agent ends soon after it is set.
        leave: called where it has not after a while, or is asked again.
        grace: how long that is [s].
    """

    def end(*_: Any) -> None:
        if stop.is_set():
            leave()
            return
        stop.set()
        later = threading.Timer(grace, leave)
        later.daemon = True  # it is of no use where the process ends by itself
        later.start()

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
