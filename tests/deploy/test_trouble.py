"""Processes die, disks fill, links drop: a deployment goes on, and no sample is lost.

Three devices over TLS: device 1 comes over a link that can be switched, the state of device 2 is on a small
disk. The tests share one deployment and take their turns in order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from cdc_flower import results
from cdc_flower.programs import free_port
from experiments.controls.deployed import deployment
from experiments.controls.soak import Keeper, account
from experiments.run.processes import Program, until

pytestmark = pytest.mark.slow
PATIENCE = 240.0  # s
DISK = 24 * 2**20  # bytes of device 2's state, before it is filled


@pytest.fixture(scope="module")
def fleet(settings, tmp_path_factory):
    """Three devices at work, and a service manager that starts what ends."""
    folder = tmp_path_factory.mktemp("trouble")
    port, link_port = free_port(), free_port()
    own = {"port": port, "round_timeout": 25.0}
    few = {
        "run.samples-per-round": 4,
        "run.rounds": 400,
        "pair.max-answer-tokens": 3,
        "cloud.source-replay": 4,
    }
    few |= {"drift.onset": 1, "drift.spread": 0, "data.items-per-domain": 6, "cloud.confidence": 0.0}
    with deployment(folder / "d") as found:
        to = [f"127.0.0.1:{at}" for at in (port, link_port, port)]
        found.provision(3, {**settings, **few}, own, addresses=to)
        link = [sys.executable, "-m", "experiments.controls.link", "--listen", to[1], "--to", to[0]]
        switch = folder / "switch"
        line = Program("link", [*link, "--switch", str(switch)], found.environment, folder / "link.log")
        state = found.devices[2].bundle / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(state)],
            capture_output=True,
            check=False,
        )
        found.small_disk = mounted.returncode == 0
        found.switch, found.keeper, ended = switch, Keeper([*found.programs, line]), threading.Event()
        keeping = threading.Thread(target=_keep, args=(found.keeper, ended))
        try:
            keeping.start()
            until(lambda: min(rounds(found)) >= 1, 2 * PATIENCE, "every device has answered", found.programs)
            yield found
        finally:
            ended.set()
            keeping.join()
            for program in found.programs:
                program.kill()
            line.kill()
            if found.small_disk:
                subprocess.run(["umount", str(state)], check=False)


def _keep(keeper, ended):
    while not ended.wait(0.3):
        keeper.look()


def rounds(fleet):
    """How many rounds each device has answered."""
    by = {d["device"]: d["rounds"] for d in fleet.status().get("devices", [])}
    return [by.get(n, 0) for n in range(len(fleet.devices))]


def goes_on(fleet, devices, more=2, seconds=PATIENCE):
    """Wait until these devices have answered so many more rounds."""
    before = rounds(fleet)
    enough = [before[n] + more for n in devices]
    what = f"devices {devices} answer {more} more rounds"
    until(
        lambda: all(rounds(fleet)[n] >= e for n, e in zip(devices, enough, strict=True)),
        seconds,
        what,
        fleet.programs,
    )


def row(fleet, number):
    return next(d for d in fleet.status()["devices"] if d["device"] == number)


def test_a_supernode_that_is_killed_costs_its_rounds_alone(fleet):
    fleet.keeper.away(fleet.devices[0].node, 1.0)
    goes_on(fleet, [1, 2])
    goes_on(fleet, [0])


def test_an_agent_whose_power_fails_at_work_does_the_order_again(fleet):
    agent, before = fleet.devices[0].agent, row(fleet, 0)
    for _ in range(3):
        said = agent.said().count("samples up")
        until(
            lambda said=said: agent.runs and agent.said().count("samples up") > said,
            PATIENCE,
            "it works",
            [agent],
        )
        fleet.keeper.away(agent, 0.5)
    goes_on(fleet, [0, 1, 2])
    assert row(fleet, 0)["refused"] == before["refused"]


def test_a_device_that_is_switched_off_and_on_catches_up(fleet):
    device, version = fleet.devices[0], fleet.status()["version"]
    fleet.keeper.away(device.node, 20.0)
    fleet.keeper.away(device.agent, 20.0)
    goes_on(fleet, [1, 2], more=3)
    goes_on(fleet, [0])
    until(lambda: row(fleet, 0)["version"] > version, PATIENCE, "it has a newer version", fleet.programs)


def test_a_link_that_is_dark_for_a_while_costs_its_device_its_rounds_alone(fleet):
    fleet.switch.write_text("dark")
    try:
        goes_on(fleet, [0, 2], more=3)
        time.sleep(70.0)  # Flower takes a node for gone after a minute
    finally:
        fleet.switch.write_text("up")
    goes_on(fleet, [1])
    fleet.switch.write_text("cut")
    time.sleep(10.0)
    fleet.switch.write_text("up")
    goes_on(fleet, [1])


@pytest.mark.parametrize("word", ["flower-superlink", "flwr-serverapp"])
def test_the_cloud_goes_on_at_its_round_when_a_part_of_it_is_killed(fleet, word):
    before = fleet.round
    (victim,) = (p for p in fleet.of_flower(word))
    victim.kill()
    until(lambda: fleet.round >= before + 2, PATIENCE, "rounds go on", fleet.programs)
    goes_on(fleet, [0, 1, 2])
    rows = results.read(fleet.cloud_folder / "run").devices
    assert not rows.duplicated(["round", "device"]).any()
    found = rows["round"].drop_duplicates().tolist()
    assert found == list(range(1, len(found) + 1))
    assert max(found) >= before + 2


def test_the_whole_cloud_may_lose_power(fleet):
    before = fleet.round
    fleet.keeper.away(fleet.cloud, 1.0)
    goes_on(fleet, [0, 1, 2])
    assert fleet.round > before


def test_a_device_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(fleet):
    if not fleet.small_disk:
        pytest.skip("no file system can be mounted here")
    state, agent = fleet.devices[2].bundle / "state", fleet.devices[2].agent
    filler, before = state / "filler", agent.starts
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(DISK))
    goes_on(fleet, [0, 1])

    def said():
        return any(
            why in p.said() for p in (agent, fleet.devices[2].node) for why in ("full", "No space left")
        )

    until(said, PATIENCE, "it says so", fleet.programs)
    filler.unlink()
    goes_on(fleet, [2])
    assert agent.starts == before


def test_a_stopped_agent_is_an_error_reply_at_once(fleet):
    agent, failed = fleet.devices[0].agent, row(fleet, 0)["failed"]
    fleet.keeper.away(agent, 60.0)
    until(lambda: row(fleet, 0)["failed"] > failed, PATIENCE, "the row is failed", fleet.programs)
    reasons = results.read(fleet.cloud_folder / "run").devices["reason"].dropna().tolist()
    assert any("the agent of device 0 is not running" in why for why in reasons)
    fleet.keeper.away(agent, 0.0)
    goes_on(fleet, [0])


def test_a_hung_supernode_is_gone_until_it_wakes(fleet):
    family = fleet.devices[0].node.family()
    for process in family:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        goes_on(fleet, [1, 2])
    finally:
        for process in family:
            if psutil.pid_exists(process.pid):
                os.kill(process.pid, signal.SIGCONT)
    goes_on(fleet, [0])


def test_after_all_that_no_sample_is_lost_none_counts_twice_and_all_mirrors_are_equal(fleet):
    """The last one: it ends the deployment."""
    goes_on(fleet, [0, 1, 2])
    fleet.keeper.programs.clear()
    status = fleet.status()
    for program in [*(d.node for d in fleet.devices), fleet.cloud, *(d.agent for d in fleet.devices)]:
        program.kill()
    digests = {int(v["version"]): str(v["digest"]) for v in status["versions"]}
    found = [account(fleet, d, digests, fleet.taken()) for d in fleet.devices]
    assert [(a.lost, a.double, a.mirror) for a in found] == [(0, 0, True)] * 3, found
    assert all(a.taken > 10 for a in found)
