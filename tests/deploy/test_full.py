"""A cloud whose disk is full says so in a line, keeps what it computed, and goes on when there is room."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from cdc_flower import results
from experiments.controls.deployed import deployment
from experiments.controls.soak import Keeper, account
from experiments.run.processes import until

pytestmark = pytest.mark.slow
PATIENCE = 400.0  # s
FULL = 45.0  # s, longer than a round and than Flower's patience with a SuperNode that says nothing
DISK = 96 * 2**20  # bytes of the cloud's folder
FEW = {
    "run.samples-per-round": 4,
    "run.rounds": 400,
    "pair.max-answer-tokens": 3,
    "cloud.source-replay": 4,
    "cloud.confidence": 0.0,
}


@pytest.fixture
def fleet(settings, tmp_path):
    """Two devices, and a cloud on a small disk of its own."""
    with deployment(tmp_path / "d") as found:
        found.provision(2, {**settings, **FEW}, {"round_timeout": 60.0})
        cloud, kept = found.cloud_folder, tmp_path / "kept"
        shutil.copytree(cloud, kept)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(cloud)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        try:
            shutil.copytree(kept, cloud, dirs_exist_ok=True)
            found.start()
            yield found
        finally:
            for program in found.programs:
                program.kill()
            subprocess.run(["umount", "-l", str(cloud)], check=False)


def test_a_full_disk_of_the_cloud_costs_time_alone(fleet):
    cloud, filler, keeper = fleet.cloud_folder, fleet.cloud_folder / "filler", Keeper(fleet.programs[1:])
    fleet.reach(2, PATIENCE)
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(DISK))  # what there is room for is written
    until(lambda: "is full" in fleet.cloud.said(), 60.0, "it says so", [fleet.cloud])
    ends = time.monotonic() + FULL
    until(lambda: keeper.look() or time.monotonic() > ends, PATIENCE, "a while")
    before = fleet.status()
    filler.unlink()

    def goes_on():
        keeper.look()
        return fleet.round >= before["round"] + 3

    until(goes_on, 2 * PATIENCE, "rounds go on", fleet.programs)
    assert fleet.cloud.starts == 1
    said = fleet.cloud.said().splitlines()
    assert [line for line in said if "is full" in line][1:] == []
    assert sum("there is room again" in line for line in said) == 1
    assert "Traceback" not in fleet.cloud.said()
    status = fleet.status()
    for device in fleet.devices:
        device.kill()
    fleet.cloud.kill()
    rounds = results.read(cloud / "run").devices
    assert not rounds.duplicated(["device", "round"]).any()
    digests = {int(v["version"]): str(v["digest"]) for v in status["versions"]}
    found = [account(fleet, d, digests, fleet.taken()) for d in fleet.devices]
    assert [(a.lost, a.double, a.mirror) for a in found] == [(0, 0, True)] * 2, found
    assert all(a.taken > 4 for a in found)
