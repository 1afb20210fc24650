"""A cloud is kept up: what dies is started again, keys follow the list of devices, and its end is orderly."""

from __future__ import annotations

import itertools
import threading

import pytest

from cdc_flower.config import ConfigError, RunError
from cdc_flower.lock import locked
from cdc_flower.setting import written
from experiments.deploy import cloud as module
from experiments.deploy.cloud import Keeper
from experiments.deploy.settings import FILE, CloudConfig
from experiments.deploy.superlink import SuperLinkError
from strategies.served import devices
from strategies.served.devices import Device, Key
from strategies.served.settings import RUN


class Program:
    """A process that lives until a test says otherwise."""

    def __init__(self, log):
        self.runs, self.starts, self.code, self.log = False, 0, None, log

    def kill(self):
        self.runs = False


class Link:
    """A SuperLink of the tests, which remembers what it was asked."""

    def __init__(self, home):
        self.home, self.program, self.insecure = home, Program(home / "superlink.log"), False
        self.flower_log = home / "flower.log"
        self.known, self.used, self.log, self.runs, self.refuses = {}, set(), [], {}, False

    def start(self):
        if self.refuses:
            raise SuperLinkError("the SuperLink did not start")
        self.program.starts += 1
        self.program.runs = True
        self.log.append("start")

    def stop(self):
        self.program.runs = False
        self.log.append("stop")

    def nodes(self):
        return set(self.known)

    def register(self, key, name):
        line = key.read_text()
        if line in self.used:
            raise SuperLinkError("`flwr supernode register` was refused: Public key already in use.")
        self.used.add(line)
        self.known[100 + len(self.used)] = line
        return 100 + len(self.used)

    def unregister(self, node):
        del self.known[node]

    def submit(self):
        run = f"run{len(self.runs)}"
        self.runs[run] = ("running", "")
        self.log.append(run)
        return run

    def status(self, run):
        return self.runs[run]

    def stop_run(self, run):
        self.log.append(f"stop {run}")


@pytest.fixture
def keeper(tmp_path):
    """A keeper whose clock the test moves: `keeper.now[0]`."""
    now, said = [1000.0], []
    (tmp_path / devices.FILE).write_text("{}")
    made = Keeper(tmp_path, Link(tmp_path), threading.Event(), said.append, clock=lambda: now[0])  # type: ignore[arg-type]
    made.now, made.told = now, said  # type: ignore[attr-defined]
    return made


def ticks(keeper, seconds, times=1):
    for _ in range(times):
        keeper.now[0] += seconds
        assert not keeper.tick()


def test_a_superlink_or_a_run_that_died_is_started_again(keeper):
    ticks(keeper, 1, 3)
    assert keeper.link.log == ["start", "run0"]
    with locked(keeper.folder / RUN):
        ticks(keeper, 1, 2)
        assert keeper.told[-1] == "the cloud runs"
    ticks(keeper, 1)  # its process is gone, though Flower has not noticed
    assert keeper.link.log[-1] == "stop run0"
    ticks(keeper, 2)
    assert keeper.link.log[-1] == "run1"
    keeper.link.program.runs = False
    ticks(keeper, 1, 3)
    assert keeper.link.log[-2:] == ["start", "run2"]
    assert len([t for t in keeper.told if "the SuperLink died" in t]) == 1


def test_on_a_full_disk_nothing_is_started_and_what_runs_goes_on(keeper, monkeypatch):
    free = [0]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free[0]}))
    ticks(keeper, 1, 3)
    assert keeper.link.log == []
    free[0] = module.ROOM
    ticks(keeper, 1, 2)
    assert keeper.link.log == ["start", "run0"]
    free[0] = 0
    with locked(keeper.folder / RUN):
        ticks(keeper, 1, 2)
    ticks(keeper, 60, 2)
    assert keeper.link.log == ["start", "run0", "stop run0"]
    free[0] = module.ROOM
    ticks(keeper, 60)
    assert keeper.link.log[-1] == "run1"
    assert [("is full" in t, "room again" in t) for t in keeper.told if "room" in t] == [(1, 0), (0, 1)] * 2


def test_waits_grow_with_each_death_and_a_long_life_forgets_them(keeper):
    starts = []
    for _ in range(6):
        while not keeper.run:
            ticks(keeper, 1)
        starts.append(keeper.now[0])
        with locked(keeper.folder / RUN):
            ticks(keeper, 1)
        ticks(keeper, 1)
    apart = [b - a for a, b in itertools.pairwise(starts)]
    assert apart == sorted(apart)
    assert apart[-1] > 60
    while not keeper.run:
        ticks(keeper, 1)
    with locked(keeper.folder / RUN):
        ticks(keeper, module.LONG + 1)
    ticks(keeper, 1)
    ticks(keeper, 2)
    assert keeper.run


def test_a_run_that_never_begins_ends_the_cloud_with_its_reason(keeper):
    ticks(keeper, 1, 2)

    def failing():
        for _ in range(200):
            if keeper.run:
                keeper.link.runs[keeper.run] = ("finished:failed", "setting 'pair.folder' = 'x'")
            ticks(keeper, 6)

    with pytest.raises(RunError, match="3 times before it began: setting 'pair.folder'"):
        failing()
    keeper.link = Link(keeper.folder)
    keeper.link.refuses = True
    with pytest.raises(SuperLinkError):
        ticks(keeper, 61, 9)


def test_the_last_round_ends_the_cloud_in_order(keeper):
    ticks(keeper, 1, 2)
    with locked(keeper.folder / RUN):
        ticks(keeper, 1)
    keeper.link.runs["run0"] = ("finished:completed", "")
    keeper.keep()
    assert keeper.link.log == ["start", "run0", "stop"]
    keeper.stop.set()
    keeper.link.program.runs, keeper.run = True, "run0"
    keeper.keep()
    assert keeper.link.log[-2:] == ["stop run0", "stop"]


def entry(name, status="made", node=None, old=()):
    return Device(f"ecdsa {name}", f"SHA256:{name}", node, "", name, status, old)


def test_keys_follow_the_list_of_devices(keeper):
    ticks(keeper, 1)
    with devices.changing(keeper.folder) as known:
        known[0], known[4] = entry("a"), entry("b")
    ticks(keeper, 1)
    assert devices.read(keeper.folder) == {0: entry("a", "registered", 101), 4: entry("b", "registered", 102)}
    with devices.changing(keeper.folder) as known:
        known[0] = entry("a", "revoked", 101)
        known[4] = entry("c", old=(Key("ecdsa b", "SHA256:b", 102, ""),))
    ticks(keeper, 1)
    assert keeper.link.nodes() == {103}
    assert devices.read(keeper.folder) == {0: entry("a", "revoked"), 4: entry("c", "registered", 103)}
    keeper.link.known, keeper.link.used = {}, set()  # its database is lost
    keeper.link.program.runs = False
    ticks(keeper, 1, 2)
    assert devices.read(keeper.folder)[4].node_id == 101


def test_a_key_that_was_registered_and_not_written_down_is_found_again(keeper):
    with devices.changing(keeper.folder) as known:
        known[0] = entry("a")
    keeper.link.used.add("ecdsa a\n")
    keeper.link.known[77] = "ecdsa a\n"
    ticks(keeper, 1, 2)
    assert devices.read(keeper.folder)[0] == entry("a", "registered", 77)


def test_a_list_of_devices_that_cannot_be_read_is_said_once_and_ends_nothing(keeper):
    (keeper.folder / devices.FILE).write_text("{")
    ticks(keeper, 1, 4)
    assert keeper.link.log == ["start", "run0"]
    assert [t for t in keeper.told if "is no list of devices" in t] == keeper.told[-1:]
    (keeper.folder / devices.FILE).write_text("{}")
    with devices.changing(keeper.folder) as known:
        known[0] = entry("a")
    ticks(keeper, 1)
    assert devices.read(keeper.folder)[0].status == "registered"


def test_both_logs_are_looked_after(keeper, monkeypatch):
    monkeypatch.setattr(module, "LOG_BYTES", 10)
    for log in (keeper.link.program.log, keeper.link.flower_log):
        log.write_bytes(b"x" * 11)
    ticks(keeper, 1, 2)
    assert not keeper.link.program.log.read_bytes() + keeper.link.flower_log.read_bytes()


def test_a_log_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_BYTES", 10)
    log = tmp_path / "superlink.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 11)
        writer.flush()
        module._bounded(log)
        writer.write(b"y")
    assert (log.read_bytes(), (tmp_path / "superlink.log.1").read_bytes()) == (b"y", b"x" * 11)


def test_a_second_cloud_on_a_folder_is_refused(tmp_path):
    (tmp_path / FILE).write_text(written(CloudConfig(page_port=0)))
    with pytest.raises(ConfigError, match=r"settings\.json"):
        module.up(tmp_path, threading.Event(), print)
    (tmp_path / "settings.json").write_text("{}")
    with locked(tmp_path):
        found = []

        def second():
            try:
                module.up(tmp_path, threading.Event(), print)
            except ConfigError as err:
                found.append(str(err))

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "is in use by" in found[0]


def test_a_list_that_another_process_changes_is_looked_at_again(keeper, monkeypatch):
    monkeypatch.setattr(module, "TICK", 0.1)
    (keeper.folder / devices.FILE).write_text("{} ")
    ticks(keeper, 1)
    with devices.changing(keeper.folder):
        ticks(keeper, 1, 2)
        assert keeper.run  # and all else goes on
    assert len([t for t in keeper.told if "is being changed by another" in t]) == 1
    ticks(keeper, 1)
    assert keeper._unread == ""


def test_devices_are_let_in_once_the_superlink_was_told_whose_keys_are_good(keeper):
    with devices.changing(keeper.folder) as now:
        now[0] = entry("roof")
    ticks(keeper, 1)
    assert keeper.link.log == ["start"]
    assert not keeper.known.is_set()
    ticks(keeper, 1)
    assert keeper.link.known
    assert keeper.known.is_set()


def test_a_list_of_devices_that_cannot_be_read_keeps_nobody_out_who_was_in(keeper):
    (keeper.folder / devices.FILE).write_text("no list")
    ticks(keeper, 1, 2)
    assert keeper.known.is_set()
