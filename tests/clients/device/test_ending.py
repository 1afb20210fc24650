"""An agent that is asked to end does so after what it is at, or soon, or at once when it is asked again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from clients.device.ending import asked

SCRIPT = """
import sys, threading, time
from clients.device.ending import asked
stop = threading.Event()
with asked(stop, grace=float(sys.argv[1])):
    print("ready", flush=True)
    stop.wait()
    print("stopping", flush=True)
    time.sleep(float(sys.argv[2]))
print("clean", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_sets_the_event_and_handlers_are_those_of_before_afterwards(number):
    before, stop, left = signal.getsignal(number), threading.Event(), []
    with asked(stop, lambda: left.append(1), grace=1000.0):
        os.kill(os.getpid(), number)
        assert stop.wait(60)
        assert left == []
        os.kill(os.getpid(), number)
        assert left == [1]
    assert signal.getsignal(number) == before


def ended(grace, busy, signals):
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(grace), str(busy)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        said = [child.stdout.readline().strip()]
        for _ in range(signals):
            child.send_signal(signal.SIGINT)
            said.append(child.stdout.readline().strip())
        said += child.stdout.read().split("\n")[:-1]
        return child.wait(60), said


def test_what_is_soon_done_is_done():
    assert ended(1000, 0, 1) == (0, ["ready", "stopping", "clean"])


def test_what_takes_long_is_left_after_a_while_or_at_once_when_asked_again():
    left = "ended in the middle of what it was at, which is done again at the next start"
    assert ended(0.1, 1000, 1) == (0, ["ready", "stopping", left])
    assert ended(1000, 1000, 2) == (0, ["ready", "stopping", left])
