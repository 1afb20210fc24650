"""Rounds without end: devices come and go, the cloud is killed and goes on, and goes back to a version."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cdc_flower import checkpoint, results
from cdc_flower.config import ConfigError, parse
from cdc_flower.fleet.engines.local_grid import LocalGrid, OwnGrid, node_id
from cdc_flower.session import session
from clients import store
from clients.client_app import app as client_app
from strategies.method import method
from strategies.run import prepare, run_local
from strategies.served import rounds as module
from strategies.served import versions
from strategies.served.gathering import Gathering
from strategies.served.rounds import Service
from strategies.served.settings import ServedConfig


class Field(OwnGrid):
    """Devices that keep their states to themselves, and come and go: `there`."""

    def __init__(self, config):
        settings = dict(config.items())
        self._inner = LocalGrid(client_app, settings["run.devices"], settings)
        self.there = set(range(settings["run.devices"]))
        self.sent = []

    def get_node_ids(self):
        return [node_id(d) for d in sorted(self.there)]

    def push_messages(self, messages):
        self.sent += [(m.metadata.message_type, m.metadata.group_id) for m in messages]
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids):
        return self._inner.pull_messages(message_ids)

    def digest(self, device):
        """Of the adapter that a device holds."""
        session().shelf(store.SHELF).clear()
        return bytes(self._inner.context(device).state["held"]["digest"])

    send_and_receive = None  # type: ignore[assignment]


@pytest.fixture
def cloud(run_settings, tmp_path):
    """`cloud()` starts a cloud over the same devices, as after a kill; `cloud.field` are the devices."""
    place = tmp_path / "cloud"
    place.mkdir()
    made = run_settings(rounds=9, receipts=True, out_dir=str(place / "run"), cloud_lr=0.05)
    key = {"public-key": "ecdsa", "fingerprint": "", "status": "registered"}
    entries = {str(d): {"name": f"d{d}", "node-id": node_id(d), **key} for d in range(3)}
    (place / "devices.json").write_text(json.dumps(entries))
    setup = prepare(parse(made))

    def start(**own):
        config = parse({**made, **own.pop("settings", {})})
        served = ServedConfig(**{"period": 0.0, **own})
        playing = method(config.run.method).build(replace(setup, config=config))
        grid = Gathering(start.field, served.buffer if served.rounds == "buffer" else 0)
        return Service(config, served, place, setup, playing, grid, sleep=lambda seconds: None)

    start.field, start.folder, start.settings = Field(made), place, made
    return start


def said(cloud):
    return json.loads((cloud.folder / "status.json").read_text())


@pytest.mark.slow
def test_rounds_over_real_devices_give_the_ledger_and_the_bits_of_a_simulation(cloud, tmp_path):
    one = cloud(last_round=2, accuracy_every=2)
    one.serve()
    whole = run_local(parse({**cloud.settings, "run.rounds": 2, "run.out-dir": str(tmp_path / "simulated")}))
    simulated, deployed = results.read(whole), results.read(cloud.folder / "run")
    columns = ["round", "device", "status", "uplink_bytes", "downlink_bytes", "uploaded_samples"]
    assert deployed.devices[columns].equals(simulated.devices[columns])
    assert one.arrays["p"].numpy().tobytes() == one.playing.lineage.newest().tobytes()
    assert deployed.status == "completed"
    assert {kind for kind, _ in cloud.field.sent} == {"query", "train"}
    now = said(cloud)
    assert (now["round"], now["version"], now["state"]) == (2, 2, "ended")
    assert [d["rounds"] for d in now["devices"]] == [2, 2, 2]
    assert [d["version"] for d in now["devices"]] == [1, 1, 1]
    assert now["devices"][0]["bytes_up"] == int(simulated.devices.query("device == 0")["uplink_bytes"].sum())
    assert [v["version"] for v in now["versions"]] == now["kept"] == [0, 1, 2]
    assert now["devices"][1]["name"] == "d1"
    assert (now["accuracy"]["version"], "source" in now["accuracy"]["domains"]) == (2, True)


def test_nobody_there_is_no_round_and_who_comes_later_gets_what_it_missed(cloud):
    one, field = cloud(), cloud.field
    field.there = set()
    one.begin()
    assert not one.play()
    assert (one.round, len(one.playing.fleet.ledger)) == (0, 0)
    assert [d["connected"] for d in said(cloud)["devices"]] == [False] * 3
    field.there = {1}
    assert one.play()
    field.there = {0, 1}
    assert one.play()
    rows = [(r.round, r.device, r.status) for r in one.playing.fleet.ledger.rows()]
    assert rows == [(1, 1, "ok"), (2, 0, "ok"), (2, 1, "ok")]
    assert one.playing.lineage.known[0] == one.playing.lineage.known[1]
    now = said(cloud)
    assert [d["connected"] for d in now["devices"]] == [True, True, False]
    assert now["devices"][2]["seen"] is None


def test_a_round_begins_when_enough_devices_are_there(cloud):
    one = cloud(least=2)
    one.begin()
    cloud.field.there = {1}
    assert not one.play()
    cloud.field.there = {0, 2}
    assert one.play()
    assert one.playing.fleet.ledger.frame()["device"].tolist() == [0, 2]


@pytest.mark.slow
def test_a_cloud_that_was_killed_goes_on_where_it_was_and_counts_nothing_twice(cloud, monkeypatch):
    whole = cloud()
    whole.begin()
    whole.play()
    first = checkpoint.load_newest(whole.folder.checkpoints)
    two = cloud()
    monkeypatch.setattr(two, "_save", lambda made=True: None)  # killed before its checkpoint
    two.begin()
    two.play()
    three = cloud()
    three.begin()
    assert three.round == 1
    assert three.playing.fleet.taken == {0: 1, 1: 1, 2: 1}
    assert three.status.tallies[0].rounds == 1
    assert first[1]["mirror"]["newest"].tobytes() == three.playing.lineage.newest().tobytes()
    three.play()
    assert [r.round for r in three.playing.fleet.ledger.rows()] == [1, 1, 1, 2, 2, 2]
    assert [v["version"] for v in said(cloud)["versions"]] == [0, 1, 2]


def test_a_disk_that_takes_nothing_costs_time_alone(cloud, caplog):
    caplog.set_level("WARNING", "flwr")
    one = cloud()
    one.begin()
    run, states = cloud.folder / "run", []
    table, newest = run / "devices.parquet", run / "checkpoints" / "round-000001.ckpt"
    for place in (table, newest):
        place.mkdir()  # a file cannot be moved over it

    def wait(seconds):
        states.append(said(cloud)["state"])
        next(place for place in (table, newest) if place.is_dir()).rmdir()

    one.sleep = wait
    assert one.play()
    assert states == ["no room", "no room"]
    assert [r.levelname for r in caplog.records if "room" in r.message] == ["ERROR", "WARNING"] * 2
    assert results.read(run).devices["round"].tolist() == [1] * len(cloud.field.there)
    two = cloud()
    two.begin()
    assert (two.round, two.version, said(cloud)["state"]) == (1, one.version, "waiting")
    assert [kind for kind, _ in cloud.field.sent].count("train") == len(cloud.field.there)
    assert two.play()
    assert [kind for kind, _ in cloud.field.sent].count("query") == len(cloud.field.there)


def test_a_rollback_brings_every_device_back_to_the_bits_of_that_version(cloud):
    one, field = cloud(), cloud.field
    one.begin()
    field.there = {0, 1, 2}
    digests = {}
    for _ in range(3):
        one.play()
        digests[one.version] = one.playing.lineage.mirror.digest
    field.there = {0, 1}
    one.play()
    assert field.digest(0) == digests[3]
    assert field.digest(2) == digests[2]
    versions.request(cloud.folder, 1)
    one.back()
    assert one.version == 1
    assert one.playing.lineage.mirror.digest == digests[1]
    assert said(cloud)["rollback"] == {**said(cloud)["rollback"], "version": 1, "from": 4, "refused": ""}
    assert not (cloud.folder / "rollback.json").exists()
    one = cloud()  # a kill now loses nothing of it
    one.begin()
    assert one.playing.lineage.mirror.digest == digests[1]
    learned, one.playing._learn = one.playing._learn, lambda _, some, __: ["?"] * len(some)  # hold it
    field.there = {0, 1}
    one.play()
    assert field.digest(0) == field.digest(1) == digests[1]
    field.there = {0, 1, 2}  # it was away when the cloud went back
    one.play()
    one.play()
    assert {field.digest(d) for d in range(3)} == {digests[1]}
    assert set(one.playing.lineage.known.values()) == {(1, digests[1])}
    one.playing._learn = learned
    one.play()
    assert one.version == 2
    assert one.playing.lineage.mirror.digest != digests[2]  # another adapter of that number
    assert list(versions.kept(cloud.folder / "run")) == [0, 1, 2]
    one.play()
    assert {field.digest(d) for d in range(3)} == {one.playing.lineage.mirror._digests[-2]}


@pytest.mark.slow
def test_a_rollback_that_cannot_be_is_said_and_the_cloud_goes_on(cloud, caplog):
    caplog.set_level("ERROR", "flwr")
    one = cloud()
    one.begin()
    one.play()
    before = one.playing.lineage.mirror.digest
    versions.request(cloud.folder, 7)
    one.back()
    assert "version 7 is not kept; kept: 0, 1" in caplog.text
    path, _ = versions.kept(cloud.folder / "run")[0]
    path.write_bytes(b"half of it")
    versions.request(cloud.folder, 0)
    one.back()
    assert "cannot be read" in said(cloud)["rollback"]["refused"]
    assert one.playing.lineage.mirror.digest == before
    assert one.play()


@pytest.mark.slow
def test_with_a_buffer_a_round_takes_what_comes_first(cloud):
    one = cloud(rounds="buffer", buffer=2, round_timeout=60.0)
    late = set()
    pull = cloud.field._inner.pull_messages

    def withholding(ids):
        pushed = cloud.field._inner._pushed
        return pull([i for i in ids if i in pushed and pushed[i].metadata.dst_node_id not in late])

    cloud.field.pull_messages = withholding
    one.begin()
    one.nodes.look(one.grid)
    late.add(node_id(2))
    one.play()
    one.play()
    late.clear()
    one.play()
    rows = [(r.round, r.device, r.status) for r in one.playing.fleet.ledger.entered()]
    assert rows[:4] == [(1, 0, "ok"), (1, 1, "ok"), (2, 0, "ok"), (2, 1, "ok")]
    assert (1, 2, "ok") in rows
    assert one.playing.fleet.taken[2] == 1


@pytest.mark.slow
def test_tables_do_not_grow_without_end(cloud, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 2)
    one = cloud()
    one.begin()
    for _ in range(3):
        one.play()
    run = cloud.folder / "run"
    assert results.read(run).devices["round"].tolist() == [3] * 3
    part = run / "parts" / "000000002"
    assert {p.name for p in part.iterdir()} == {"devices.parquet", "metrics.parquet", "rounds.parquet"}
    two = cloud()
    two.begin()
    assert [r.round for r in two.playing.fleet.ledger.rows()] == [3] * 3
    assert two.status.tallies[0].rounds == 3


@pytest.mark.slow
def test_another_model_is_refused_and_a_lost_checkpoint_begins_behind(cloud, caplog):
    caplog.set_level("WARNING", "flwr")
    one = cloud()
    one.begin()
    one.play()
    two = cloud(settings={"pair.compression": "int8"})
    with pytest.raises(ConfigError, match="pair.compression = 'nf4', now it is 'int8'"):
        two.begin()
    for path in checkpoint.found(one.folder.checkpoints).values():
        path.write_bytes(b"")
    three = cloud()
    three.begin()
    assert (three.round, three.version) == (2, 0)
    assert three.play()
    assert np.isfinite(three.arrays["p"].numpy()).all()
