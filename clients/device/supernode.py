"""Flower's SuperNode, which ends when its work does: `python -m clients.device.supernode`, with its options.

Flower's own program serves its ClientApps from a thread that keeps the process alive. Where the connection
to the cloud fails for good in its eyes, as by a TLS handshake that timed out on a dark link, its main thread
ends and the process stays, asks for nothing, and does nothing. Here the process ends with it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from flwr.supernode.cli import flower_supernode


def ended(work: Callable[[], object]) -> int:
    """Do the work of a program; its exit code: what it asks for, or 1 where it just returns or raises."""
    try:
        work()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
    except BaseException:  # the last words of a process
        traceback.print_exc()
    return 1


if __name__ == "__main__":
    code = ended(flower_supernode)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
