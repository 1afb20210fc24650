"""A cloud is kept up: what dies is started again, keys follow the list of devices, and its end is orderly."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import pytest

from cdc_flower.config import ConfigError, RunError
from cdc_flower.disk import DiskError
from cdc_flower.lock import locked
from cdc_flower.setting import written
from experiments.deploy import cloud as module
from experiments.deploy import keys
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

    def keys(self):
        return {node: line.strip() for node, line in self.known.items()}

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


class Killed(BaseException):
    """The process ends here."""


def again(keeper):
    """The keeper of the next `cloud up`, on the same database."""
    keeper.link.program.runs = False
    return Keeper(keeper.folder, keeper.link, threading.Event(), keeper.say, clock=lambda: keeper.now[0])


def fails(link, call, at, why):
    """The call of that number raises; of a key that is registered, after the SuperLink has it."""
    real, calls = getattr(link, call), itertools.count(1)

    def failing(*arguments):
        found, number = real(*arguments), next(calls)
        if number == at:
            raise why
        return found

    setattr(link, call, failing)


def read(keeper):
    return {n: (one.status, one.node_id) for n, one in devices.read(keeper.folder).items()}


def test_a_cloud_that_is_killed_while_it_registers_goes_on_with_the_next(keeper):
    with devices.changing(keeper.folder) as known:
        known.update({n: entry(name) for n, name in enumerate("abcd")})
    fails(keeper.link, "register", 3, Killed())
    ticks(keeper, 1)
    with pytest.raises(Killed):
        keeper.tick()
    assert [status for status, _ in read(keeper).values()] == ["registered", "registered", "made", "made"]
    after = again(keeper)
    after.tick()
    after.tick()
    assert read(keeper) == {n: ("registered", 101 + n) for n in range(4)}
    assert keeper.link.nodes() == {101, 102, 103, 104}


def test_several_keys_that_nobody_wrote_down_are_found_by_what_they_are(keeper):
    with devices.changing(keeper.folder) as known:
        known.update({n: entry(name) for n, name in enumerate("abc")})
        known[2] = dataclasses.replace(known[2], public_key="ecdsa c of a device")
    keeper.link.known = {77: "ecdsa c\n", 78: "ecdsa a\n", 79: "ecdsa nobody\n"}
    keeper.link.used = {"ecdsa a\n", "ecdsa c\n"}
    ticks(keeper, 1, 2)
    assert read(keeper) == {0: ("registered", 78), 1: ("registered", 103), 2: ("registered", 77)}
    assert keeper.link.nodes() == {77, 78, 103}


def test_a_key_that_nobody_wrote_down_and_that_was_revoked_is_let_in_no_longer(keeper):
    with devices.changing(keeper.folder) as known:
        known[0] = entry("a")
    fails(keeper.link, "register", 1, Killed())
    ticks(keeper, 1)
    with pytest.raises(Killed):
        keeper.tick()
    with devices.changing(keeper.folder) as known:
        known[0] = entry("a", "revoked")
    after = again(keeper)
    after.tick()
    after.tick()
    assert keeper.link.nodes() == set()
    assert after.known.is_set()


def test_a_list_that_cannot_be_written_for_a_moment_loses_no_device(keeper, monkeypatch):
    with devices.changing(keeper.folder) as known:
        known.update({n: entry(name) for n, name in enumerate("ab")})
    real, fail = devices.replace, [True]

    def full(*arguments, **how):
        if fail and fail.pop():
            raise DiskError("no space")
        real(*arguments, **how)

    monkeypatch.setattr(devices, "replace", full)
    ticks(keeper, 1, 4)
    assert read(keeper) == {0: ("registered", 101), 1: ("registered", 102)}


def test_a_key_that_is_refused_is_asked_again_later_and_all_else_goes_on(keeper):
    ticks(keeper, 1, 3)
    real, asked = keeper.link.register, []

    def refuse(key, name):
        asked.append(name)
        if name == "a":
            raise SuperLinkError("`flwr supernode register` was refused: whatever")
        return real(key, name)

    keeper.link.register = refuse
    with devices.changing(keeper.folder) as known:
        known.update({n: entry(name) for n, name in enumerate("ab")})
    with locked(keeper.folder / RUN):
        ticks(keeper, 1, 5)
    assert read(keeper) == {0: ("made", None), 1: ("registered", 101)}
    ticks(keeper, 1, 5)
    assert keeper.link.log[-1] == "run1"
    assert asked == ["a", "b"]
    assert len([t for t in keeper.told if "device 0 is not registered" in t]) == 1
    ticks(keeper, module.AGAIN)
    assert asked == ["a", "b", "a"]


def test_nobody_is_let_in_before_a_superlink_that_does_not_answer_knows_who_is_revoked(keeper):
    fails(keeper.link, "nodes", 1, SuperLinkError("`flwr supernode ls` did not end within 60 s"))
    ticks(keeper, 1, 5)
    assert not keeper.known.is_set()
    assert keeper.run
    ticks(keeper, module.AGAIN)
    assert keeper.known.is_set()


def test_a_cloud_that_is_told_to_stop_registers_no_further(keeper):
    with devices.changing(keeper.folder) as known:
        known.update({n: entry(name) for n, name in enumerate("ab")})
    ticks(keeper, 1)
    real = keeper.link.register

    def last(key, name):
        keeper.stop.set()
        return real(key, name)

    keeper.link.register = last
    keeper.tick()
    assert read(keeper) == {0: ("registered", 101), 1: ("made", None)}


def test_whoever_changes_the_list_is_not_waited_for_between_two_keys(keeper, monkeypatch):
    monkeypatch.setattr(module, "TICK", 0.1)
    with devices.changing(keeper.folder) as known:
        known.update({n: entry(name) for n, name in enumerate("ab")})
    ticks(keeper, 1)
    real, held, go = keeper.say, threading.Event(), threading.Event()

    def other():
        with devices.changing(keeper.folder):
            held.set()
            go.wait(60)

    thread = threading.Thread(target=other)

    def say(text):
        real(text)
        if "device 0" in text:
            thread.start()
            held.wait(20)

    keeper.say = say
    keeper.tick()
    go.set()
    thread.join()
    assert read(keeper) == {0: ("registered", 101), 1: ("made", None)}
    assert "is being changed by another process" in keeper.told[-1]


def test_files_that_run_out_end_neither_the_cloud_nor_its_run(keeper, monkeypatch):
    ticks(keeper, 1, 3)

    def none_left(folder):
        raise OSError(24, "Too many open files")

    with locked(keeper.folder / RUN):
        ticks(keeper, 1)
        with monkeypatch.context() as during:
            during.setattr(module, "taken", none_left)
            ticks(keeper, 60, 3)
        ticks(keeper, 1, 2)
    assert keeper.link.log == ["start", "run0"]
    assert len([t for t in keeper.told if "Too many open files" in t]) == 1


def test_a_gate_that_ended_ends_the_cloud_with_a_reason(keeper):
    ticks(keeper, 1, 2)
    keeper.ended.set()
    with pytest.raises(RunError, match="the gate ended"):
        keeper.keep()
    assert keeper.link.log[-1] == "stop"


def test_a_certificate_that_ends_soon_is_said_once_a_day(keeper):
    keys.authority(keeper.folder)
    keys.server(keeper.folder, ["localhost"], 20)
    ticks(keeper, 1, 3)
    assert len([t for t in keeper.told if t.startswith("warning: the server's certificate ends 20")]) == 1
    ticks(keeper, module.DAY)
    assert len([t for t in keeper.told if "certificate" in t]) == 2


def test_a_cloud_whose_rotation_was_interrupted_does_not_start_and_says_what_to_do(tmp_path):
    keys.authority(tmp_path)
    keys.server(tmp_path, ["localhost"])
    (tmp_path / keys.SERVER_KEY).unlink()
    (tmp_path / "other" / "ca").mkdir(parents=True)
    for name in (keys.CA_KEY, keys.CA_CERT):
        (tmp_path / "other" / name).write_bytes((tmp_path / name).read_bytes())
    keys.server(tmp_path / "other", ["localhost"])
    (tmp_path / "other" / keys.SERVER_KEY).rename(tmp_path / keys.SERVER_KEY)
    link = module.SuperLink(tmp_path, 9)
    with pytest.raises(ConfigError, match=r"allowed: a pair, which `cdc-flower provision rotate .* server`"):
        module._gate(tmp_path, CloudConfig(), link, lambda: True, lambda: None)
