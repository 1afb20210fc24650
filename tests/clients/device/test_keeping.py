"""A SuperNode is started until it stays, and ends where no start mends why; with a stub for Flower."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from cdc_flower.config import ConfigError, RunError
from clients.device.keeping import MARK, Keeper, refusal

STUB = """
import os, pathlib, signal, subprocess, sys, time
begun, plan = pathlib.Path(sys.argv[1]), sys.argv[2:]
n = len(begun.read_text()) if begun.exists() else 0
begun.write_text("x" * (n + 1))
for step in plan[min(n, len(plan) - 1)].replace("stay", "mind|here|wait").split("|"):
    if step == "mind":
        signal.signal(signal.SIGTERM, lambda *_: (print("goodbye", flush=True), os._exit(0)))
    elif step == "here":
        print("here now", flush=True)
    elif step == "wait":
        time.sleep(60)
    elif step == "child":
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
    elif step == "die":
        os.kill(os.getpid(), 9)
    elif step.startswith("exit "):
        sys.exit(int(step[5:]))
    else:
        print("\\x1b[92mINFO\\x1b[0m: " + step, flush=True)
"""
FAILED = "Exit Code: 305|Failed to initialize the connection to the SuperLink."
UNKNOWN = f"{FAILED}|[code: 2004] Failed to activate SuperNode.|exit 1"
BROKEN = f"{FAILED}|EOF occurred in violation of protocol (_ssl.c:1006)|exit 1"
IN = "SuperNode ID: 77"


@pytest.fixture
def keeper(tmp_path):
    """`keeper(plan, ...)`: what the stub says and does at its first, second, ... start."""

    def make(*plan, **own):
        stub, begun = tmp_path / "stub.py", tmp_path / "begun"
        stub.write_text(STUB)
        (tmp_path / "home").mkdir(exist_ok=True)
        argv, said = [sys.executable, str(stub), str(begun), *plan], []
        own = {"waits": (0.05,), "killed": 0.0, **own}
        made = Keeper(lambda: (argv, {"STUB": "1"}), tmp_path / "home", "cloud:9443", said.append, **own)
        made.told, made.begun = said, begun  # type: ignore[attr-defined]
        return made

    return make


def starts(keeper):
    return len(keeper.begun.read_text())


def kept(keeper, until, seconds=20.0):
    """Keep in the main thread, as the command does, and stop once `until` is said."""

    def watch():
        end = time.monotonic() + seconds
        while time.monotonic() < end and not any(until in line for line in keeper.told):
            time.sleep(0.02)
        keeper.stop.set()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        keeper.keep()
    finally:
        keeper.stop.set()
        watching.join()
    assert any(until in line for line in keeper.told), keeper.told


def test_what_a_start_mends_is_started_again_and_each_change_is_one_line(keeper):
    away = "Connection attempt failed, retrying in 3 seconds"
    device = keeper(f"{away}|{away}|{away}|exit 1", BROKEN, BROKEN, f"{away}|{IN}|die", f"{IN}|stay")
    kept(device, "here now")
    assert starts(device) == 5
    assert [line for line in device.told if "cloud:9443" in line or "started" in line] == [
        "the cloud at cloud:9443 does not answer; it is asked until it does",
        "the cloud at cloud:9443 lets this device in",
        "the SuperNode ended (by signal 9); it is started until it stays",
        "the cloud at cloud:9443 lets this device in",
    ]
    assert not any("retrying" in line for line in device.told)
    assert device.told[-1] == "goodbye"
    assert not (device.home / MARK).exists()


def message(run, round, what):
    return f"[RUN {run}, ROUND {round}]|{what}: train message (ID: 0f)"


def test_one_whose_replies_are_a_message_late_is_started_again(keeper):
    rights = "|".join(message(7, n, what) for n in (1, 2) for what in ("Receiving", "Sending"))
    late = "|".join([message(7, 3, "Receiving"), message(8, 3, "Receiving"), message(7, 3, "Sending")])
    device = keeper(f"{IN}|{rights}|mind|{late}|wait", f"{IN}|{rights}|stay")
    kept(device, "here now")
    assert starts(device) == 2
    words = [line for line in device.told if "SuperNode sent" in line]
    assert words == ["the SuperNode sent the reply to an earlier message; it is started again"]
    assert device.told.count("goodbye") == 2


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (UNKNOWN, "does not know its key (not registered, or revoked)"),
        (f"{FAILED}|[code: 2001] SuperNode registration is disabled.|exit 1", "only devices with a key"),
        (f"{FAILED}|[code: 1001] other version|exit 1", "another version"),
        (
            f"{FAILED}|[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired "
            "(_ssl.c:1006)|exit 1",
            "its certificate is not believed (certificate has expired)",
        ),
        (f"{FAILED}|[SSL: WRONG_VERSION_NUMBER] wrong version number|exit 1", "no TLS at this port"),
        ("Exit Code: 600|SuperLink address (x) cannot be parsed.|exit 1", "cannot be parsed"),
        ("SuperNode terminated gracefully.|exit 0", "is its clock right?"),
    ],
)
def test_what_no_start_mends_ends_it_at_once_in_one_line(keeper, plan, why):
    device = keeper(plan)
    with pytest.raises(RunError) as refused:
        device.keep()
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    assert starts(device) == 1
    assert device.told == []


def test_a_key_that_is_revoked_while_the_device_is_in_ends_it_at_its_next_start(keeper):
    device = keeper(f"{IN}|SuperNode terminated gracefully.|exit 0", UNKNOWN)
    with pytest.raises(RunError, match="does not know its key"):
        device.keep()
    assert starts(device) == 2


def test_after_a_kill_it_is_waited_until_the_cloud_has_missed_the_one_before(keeper):
    device = keeper(UNKNOWN, UNKNOWN, f"{IN}|stay", killed=20.0)
    (device.home / MARK).touch()  # as one whose power failed leaves it
    kept(device, "here now")
    assert starts(device) == 3
    assert device.told[0].startswith("the cloud at cloud:9443 still counts on the SuperNode that was killed")
    assert sum("still counts" in line for line in device.told) == 1


def test_that_wait_has_an_end_and_is_not_begun_again(keeper):
    device = keeper(UNKNOWN, killed=0.2)
    (device.home / MARK).touch()
    with pytest.raises(RunError, match="revoked meanwhile"):
        device.keep()
    with pytest.raises(RunError, match="not registered, or revoked"):
        device.keep()


def test_what_it_had_started_ends_with_it(keeper):
    device = keeper(f"{IN}|child|die", f"{IN}|stay")
    kept(device, "here now")
    child = next(line for line in device.told if line.isdigit())
    assert not psutil.pid_exists(int(child)) or psutil.Process(int(child)).status() == "zombie"


def test_waits_grow_to_a_bound_and_differ(keeper, monkeypatch):
    device, waited = keeper("x", waits=(1.0, 2.0, 4.0)), []
    monkeypatch.setattr(device.stop, "wait", waited.append)
    for _ in range(50):
        device._after(1, BROKEN, False)
    assert 0.5 <= waited[0] <= 1.0
    assert 1.0 <= waited[1] <= 2.0
    assert all(2.0 <= wait <= 4.0 for wait in waited[2:])
    assert len(set(waited)) == 50


def test_a_second_one_of_a_device_is_refused(keeper):
    device, other = keeper(f"{IN}|stay"), keeper(f"{IN}|stay")
    refused = []

    def second():
        while not device.told:
            time.sleep(0.02)
        try:
            other.keep()
        except ConfigError as err:
            refused.append(str(err))
        device.stop.set()

    trying = threading.Thread(target=second)
    trying.start()
    device.keep()
    trying.join()
    assert "is in use by" in refused[0]


def test_without_flower_it_says_what_is_missing(keeper):
    device = keeper("x")
    device.command = lambda: (["/nowhere/flower-supernode"], {})
    with pytest.raises(ConfigError, match="flwr installed"):
        device.keep()


def test_one_that_is_killed_alone_leaves_no_supernode(keeper, tmp_path):
    keeper("x")  # writes the stub
    argv = [sys.executable, str(tmp_path / "stub.py"), str(tmp_path / "begun"), f"{IN}|stay"]
    code = (
        "import sys; from pathlib import Path; from clients.device.keeping import Keeper\n"
        f"Keeper(lambda: ({argv!r}, {{}}), Path({str(tmp_path / 'home')!r}), 'c', "
        "lambda line: print(line, flush=True)).keep()"
    )
    alone = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=dict(os.environ))
    assert alone.stdout is not None
    while b"here now" not in alone.stdout.readline():
        pass
    (started,) = psutil.Process(alone.pid).children()
    alone.kill()
    alone.wait()
    alone.stdout.close()
    psutil.wait_procs([started], timeout=20)
    assert not started.is_running()


def test_a_reason_that_is_not_known_is_no_refusal():
    assert refusal(1, FAILED.replace("|", "\n") + "\n[Errno 104] Connection reset by peer") == ""
    assert refusal(-9, "") == ""
