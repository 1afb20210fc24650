"""FleetGrid gives what LocalGrid gives, loses no worker's work and counts none twice."""

from __future__ import annotations

import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.fleet.engines import fleet_grid
from cdc_flower.fleet.engines.fleet_grid import FleetGrid
from cdc_flower.fleet.engines.local_grid import LocalGrid, node_id
from cdc_flower.wire.messages import state_bytes, state_of
from strategies.run import run_fleet, run_local

pytestmark = [
    pytest.mark.usefixtures("ray"),
    pytest.mark.filterwarnings(
        "ignore:.*subprocess .* is still running:ResourceWarning", "ignore:unclosed file:ResourceWarning"
    ),
]
CLIENT, BUNDLE = "tiny_app:app", "tiny_app:bundle"


@pytest.fixture
def make():
    """`make(devices=4, workers=1, bundle="")`: a grid over the tiny app."""
    made = []

    def build(devices=4, workers=1, bundle=""):
        made.append(FleetGrid(CLIENT, devices, {"lr": 0.5}, workers=workers, bundle=bundle))
        return made[-1]

    yield build
    for grid in made:
        grid.close()


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def ask(device: int, **config) -> Message:
    content = RecordDict({"config": ConfigRecord(config)})
    return Message(content, dst_node_id=node_id(device), message_type="train")


def told(replies) -> list:
    return [
        (r.error.code, r.error.reason)
        if r.has_error()
        else {
            name: {
                k: v.numpy().tolist() if hasattr(v, "numpy") else v
                for k, v in record.items()
                if k != "together"
            }
            for name, record in r.content.items()
        }
        for r in replies
    ]


@pytest.mark.parametrize(("workers", "bundle"), [(1, ""), (2, BUNDLE)])
def test_replies_and_states_are_those_of_the_local_grid(make, workers, bundle):
    import tiny_app

    here, there = LocalGrid(tiny_app.app, 12, {"lr": 0.5}), make(12, workers, bundle)
    failing = {} if bundle else {5: {"raise": True}, 7: {"forget": True}}
    for _ in range(2):
        rounds = []
        for grid in (here, there):
            messages = [ask(d, **failing.get(d, {})) for d in (3, 0, 11, 5, 7, 8)]
            replies = list(grid.send_and_receive(messages))
            ids = [m.metadata.message_id for m in messages]
            assert [r.metadata.reply_to_message_id for r in replies] == ids
            assert [r.metadata.src_node_id for r in replies] == [m.metadata.dst_node_id for m in messages]
            assert not any("changed" in m.content["config"] for m in messages)
            assert len({r.metadata.message_id for r in replies}) == len(replies)
            rounds.append(told(replies))
        assert rounds[0] == rounds[1]
    states = {d: state_bytes(here.context(d).state) for d in range(12)}
    assert there.states() == {d: s for d, s in states.items() if s}
    assert len(there.states()) == (6 if bundle else 4)


def test_states_can_be_taken_along(make):
    first = make()
    first.send_and_receive([ask(0), ask(2)])
    states = first.states()
    first.close()
    second = make()
    second.restore(states)
    assert told(second.send_and_receive([ask(0), ask(1)]))[0]["metrics"]["seen"] == 2
    assert state_of(second.states()[1])["seen"]["n"] == 1


def test_messages_to_one_device_follow_one_another(make):
    replies = make(workers=2).send_and_receive([ask(1), ask(1), ask(0), ask(1)])
    assert [t["metrics"]["seen"] for t in told(replies)] == [1, 2, 1, 3]


def test_nodes_are_those_of_the_local_grid_and_others_are_refused(make):
    import tiny_app

    grid = make(50)
    assert list(grid.get_node_ids()) == list(LocalGrid(tiny_app.app, 50, {}).get_node_ids())
    assert [grid.device_of(node) for node in grid.get_node_ids()] == list(range(50))
    with pytest.raises(ValueError, match="no node 7 in this grid of 50 devices"):
        grid.push_messages([Message(RecordDict(), dst_node_id=7, message_type="train")])


def test_push_and_pull_give_each_reply_once(make):
    grid = make()
    ids = list(grid.push_messages([ask(0), ask(1)]))
    assert [r.metadata.reply_to_message_id for r in grid.pull_messages(ids)] == ids
    assert list(grid.pull_messages(ids)) == []


def test_flowers_own_fedavg_runs_on_it(make):
    start = ArrayRecord({"w": Array(np.zeros(2, np.float32))})
    result = FedAvg().start(make(3), start, num_rounds=2)
    np.testing.assert_allclose(result.arrays["w"].numpy(), [2.0, 2.0])


def test_what_is_not_back_in_time_has_not_happened(make):
    grid = make()
    assert grid.send_and_receive([ask(0)], timeout=-1.0) == []
    grid.send_and_receive([ask(0)])
    grid._pace["train"] = 1.0  # bundles of one
    began = time.monotonic()
    for seconds in (3.0, 60.0):  # a busy host may need the second
        if replies := grid.send_and_receive([ask(1), ask(0, sleep=500.0)], timeout=seconds):
            break
    assert time.monotonic() - began < 250
    (reply,) = replies
    assert told([reply])[0]["metrics"]["device"] == 1
    assert state_of(grid.states()[0])["seen"]["n"] == 1
    assert told(grid.send_and_receive([ask(0)]))[0]["metrics"]["seen"] == 2


def test_a_worker_that_is_killed_costs_nothing_and_nothing_happens_twice(make, log):
    grid = make(6, workers=2, bundle=BUNDLE)
    grid._pace["train"] = 1e-3  # bundles of three
    replies = grid.send_and_receive([ask(d, log=str(log), die="once" if d == 4 else "") for d in range(6)])
    assert [t["metrics"]["seen"] for t in told(replies)] == [1] * 6
    assert {state_of(s)["seen"]["n"] for s in grid.states().values()} == {1}
    worked = [int(line) for line in log.read_text().split()]
    assert worked.count(4) == 2  # it did run again


def test_a_message_that_kills_every_worker_becomes_its_devices_error_reply(make, log, monkeypatch):
    monkeypatch.setattr(fleet_grid, "DEATHS", 2)
    grid = make(2)
    grid._pace["train"] = 1e-3  # one bundle
    replies = grid.send_and_receive([ask(0), ask(1, log=str(log), die="always")])
    assert told(replies)[0]["metrics"]["seen"] == 1
    assert told(replies)[1] == (2, "its worker process died 2 times")
    assert list(grid.states()) == [0]
    assert len(log.read_text().split()) == 4  # twice with its neighbour, twice alone


def test_bundles_shrink_and_keep_what_shares_a_frame_together(make, monkeypatch):
    monkeypatch.setattr(fleet_grid, "BUNDLE_SECONDS", 0.0)
    grid = make(40, bundle=BUNDLE)
    arrays = [ArrayRecord({"w": Array(np.full(2, float(i)))}) for i in range(2)]
    messages = [ask(d) for d in range(40)]
    for d, message in enumerate(messages):
        message.content["arrays"] = arrays[d % 2]
    ordered = fleet_grid._grouped(messages)
    assert [m.content["arrays"] is arrays[0] for m in ordered] == [True] * 20 + [False] * 20
    together = [r.content["metrics"]["together"] for r in grid.send_and_receive(messages)]
    assert set(together) == {20, 10, 5, 3, 1}
    assert told(grid.send_and_receive(messages))[3]["arrays"]["w"] == [4.0, 4.0]


def test_an_error_of_the_bundle_function_is_not_a_devices(make):
    with pytest.raises(LookupError, match="a bundle function with a bug"):
        make(bundle="tiny_app:broken").send_and_receive([ask(0)])


def test_a_run_is_the_same_on_every_number_of_workers(run_settings, tmp_path):
    """The real pair in virtual time, some devices two versions behind: ledger and adapters."""
    settings = run_settings(
        devices=4, rounds=3, samples_per_round=4, mode="async", in_flight=3, buffer=2, trace="always"
    )
    found = {}
    for name, start in {
        "local": run_local,
        "one": lambda config: run_fleet(config, workers=1),
        "two": lambda config: run_fleet(config, workers=2),
    }.items():
        folder = start(parse({**settings, "run.out-dir": str(tmp_path / name)}))
        run = results.read(folder)
        assert run.status == "completed"
        adapters = sorted(p.name for p in (folder / "adapters").iterdir())
        found[name] = run.run["ledger_digest"], adapters, run.rounds.to_dict("list")
    assert found["local"] == found["one"] == found["two"]
    assert len(found["local"][1]) > 1
    assert run.info["engine"] == "FleetGrid"


@pytest.mark.slow
def test_a_doorkeeper_drops_the_same_on_every_engine(run_settings, tmp_path, monkeypatch):
    monkeypatch.setattr("strategies.doorkeeper.PICTURES", (16, 1000))
    settings = run_settings(
        devices=4, rounds=3, samples_per_round=4, cloud_doorkeeper="on", poison_devices="1,2:sybil"
    )
    found = {}
    for name, start in {"local": run_local, "two": lambda config: run_fleet(config, workers=2)}.items():
        run = results.read(start(parse({**settings, "run.out-dir": str(tmp_path / name)})))
        dropped = run.metrics[run.metrics["name"].str.startswith("dropped_")]
        found[name] = run.run["ledger_digest"], dropped.to_dict("list")
    assert found["local"] == found["two"]
    assert sum(found["local"][1]["value"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mmpg", "mmpg_cdc"])
def test_generated_adapters_are_the_same_on_every_engine(method, clip_settings, tmp_path):
    settings = clip_settings(method=method, rounds=3, fail_devices="2:1", **{"cloud.steps": 1})
    found = {}
    for name, start in {"local": run_local, "two": lambda config: run_fleet(config, workers=2)}.items():
        folder = start(parse({**settings, "run.out-dir": str(tmp_path / name)}))
        run = results.read(folder)
        assert run.status == "completed"
        adapters = sorted(p.name for p in (folder / "adapters").iterdir())
        tables = run.rounds, run.personal, run.summaries
        found[name] = run.run["ledger_digest"], adapters, [table.to_dict("list") for table in tables]
    assert found["local"] == found["two"]
    assert len(found["local"][1]) > 2
