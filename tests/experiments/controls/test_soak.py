"""What a soak calls lost, double and equal, on devices whose databases are written here."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from cdc_flower.fleet.engines.adapter_files import HELD, write
from cdc_flower.wire import keys
from cdc_flower.wire.messages import state_bytes
from clients.device.spool import New, Spool
from clients.store import Adapter
from experiments.controls.deployed import Deployment, Device
from experiments.controls.soak import KILLS, Account, Keeper, Soak, account


class Fake:
    """A program that is only counted."""

    def __init__(self, name):
        self.name, self.runs, self.starts = name, False, 0

    def start(self):
        self.runs, self.starts = True, self.starts + 1

    def kill(self):
        self.runs = False


@pytest.fixture
def device(tmp_path):
    """Device 1: ten samples came and room is for eight; three were taken, two are out in round 5; it has
    version 2.
    """
    bundle = tmp_path / "device"
    (bundle / "state").mkdir(parents=True)
    (bundle / "device.toml").write_text("number = 1\nspool-samples = 8\n")
    found = Device(1, bundle, Fake("agent"), Fake("node"))
    adapter = Adapter.of(np.arange(4.0), 2)
    write(bundle / "state" / "adapters", adapter.digest, adapter.flat)
    held = ConfigRecord({keys.VERSION: 2, keys.DIGEST: adapter.digest})
    with found.database() as database:
        spool = Spool(database, 8, 2**20)
        ids = spool.add([New("q", np.zeros((2, 3), np.float16), (2, 1, 2), "a", float(i)) for i in range(10)])
        spool.take(4, ids[-3:])
        spool.settle(5, 4)
        spool.take(5, ids[-5:-3])
        database.know("state", state_bytes(RecordDict({HELD: held})))
    return found, adapter.digest.hex()


@pytest.mark.parametrize(
    ("cloud", "last", "expected"),
    [
        (3, 4, (3, 5, 0, 0)),  # the last reply was not taken: its two samples wait
        (5, 5, (5, 3, 0, 0)),  # it was, and the device does not know yet
        (4, 5, (5, 3, 1, 0)),  # the cloud says it took fewer
        (5, 4, (3, 5, 0, 2)),  # it took more than the device will ever know of
    ],
)
def test_a_sample_is_taken_waits_or_was_dropped(device, cloud, last, expected):
    one, digest = device
    found = account(Deployment(one.bundle), one, {2: digest}, {1: (cloud, last)})
    assert (found.taken, found.waiting, found.lost, found.double) == expected
    assert (found.spooled, found.dropped, found.version, found.mirror) == (10, 2, 2, True)


def test_a_mirror_is_the_digest_of_the_cloud_and_a_file_that_can_be_read(device):
    one, digest = device
    assert not account(Deployment(one.bundle), one, {2: "00" * 8}, {}).mirror
    assert not account(Deployment(one.bundle), one, {3: digest}, {}).mirror
    (adapter,) = (one.bundle / "state" / "adapters").glob("*.npy")
    adapter.write_bytes(b"")
    assert not account(Deployment(one.bundle), one, {2: digest}, {}).mirror


def test_a_soak_is_right_when_no_device_is_wrong():
    good = Account(0, 10, 4, 5, 1, 4, 2, True)
    bad = [Account(0, 10, 4, 5, 0, 4, 2, True), Account(0, 10, 4, 5, 1, 5, 2, True)]
    bad += [Account(0, 10, 4, 5, 1, 4, 2, False), Account(0, 0, 0, 0, 0, 0, 0, True)]
    assert Soak(1.0, 0, devices=[good]).found()["ok"]
    assert [Soak(1.0, 0, devices=[one]).found()["ok"] for one in bad] == [False] * 4
    assert not Soak(1.0, 0).found()["ok"]
    mixed = Soak(1.0, 0, devices=[good, bad[0], bad[1]]).found()
    assert (mixed["lost"], mixed["double"], mixed["spooled"]) == (1, 1, 30)


def test_a_service_manager_starts_what_ended_but_not_what_is_to_be_away():
    kept, away = Fake("kept"), Fake("away")
    keeper = Keeper([kept, away])
    keeper.look()
    assert (kept.starts, away.starts) == (1, 1)
    kept.runs = False
    keeper.away(away, 600.0)
    keeper.look()
    assert (kept.starts, away.starts) == (1, 1)  # one that ends by itself is not started at once
    keeper.away(away, 0.0)
    keeper.look()
    assert (kept.starts, away.starts) == (1, 2)


def test_there_is_a_kill_of_each_process():
    assert set(KILLS) == {"agent", "supernode", "device", "superlink", "serverapp", "cloud"}
