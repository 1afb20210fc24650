"""A deployed round is the simulated one, and what happens on a device stays with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.downlink import update
from cdc_flower.fleet.engines.local_grid import LocalGrid
from cdc_flower.session import session
from cdc_flower.uplink.pictures import picture_batch
from cdc_flower.wire import keys
from cdc_flower.wire.messages import frame_of, payload, state_bytes, state_of
from clients.device import conditions, mover, orders, start
from clients.device.agent import Agent
from clients.device.conditions import Conditions
from clients.device.database import DatabaseError
from clients.device.feeds import QUESTIONS
from clients.device.mailbox import Order
from clients.device.spool import TRIES, Facts
from clients.store import SHELF, Adapter
from strategies.run import run, run_local
from tests.clients.device import feeding as fed


@contextmanager
def running(bundles: Sequence[Path]) -> Iterator[list[Agent]]:
    """Agents of these bundles, each in a thread."""
    stop = threading.Event()
    with ExitStack() as held:
        agents = [held.enter_context(start.opened(folder)) for folder in bundles]
        threads = [threading.Thread(target=agent.run, args=(stop,)) for agent in agents]
        for thread in threads:
            thread.start()
        try:
            yield agents
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def moving(bundles: Sequence[Path]) -> ClientApp:
    """The mover of each device, as its node config names it."""
    app = ClientApp()

    def own(context: Context) -> Context:
        folder = str(bundles[int(context.node_config["partition-id"])])
        return Context(context.run_id, context.node_id, {mover.BUNDLE: folder}, context.state, {})

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return mover.query(message, own(context))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return mover.train(message, own(context))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return mover.evaluate(message, own(context))

    return app


def deployed(settings: Mapping[str, Any], bundles: Sequence[Path]) -> results.RunResult:
    """A run whose devices are these bundles."""
    grid = LocalGrid(moving(bundles), len(bundles), {}, roundtrip=True)
    return results.read(run(grid, Context(1, 1, {}, RecordDict(), dict(settings))))


@pytest.mark.slow
def test_three_agents_give_the_ledger_of_a_simulated_fleet(run_settings, make_bundle, tmp_path):
    settings = run_settings(method="cdc", run_receipts=True)
    local = results.read(run_local(parse(settings), roundtrip=True))
    bundles = [make_bundle(settings, number) for number in range(3)]
    with running(bundles) as agents:
        found = deployed({**settings, "run.out-dir": str(tmp_path / "deployed")}, bundles)
        assert found.run["ledger_digest"] == local.run["ledger_digest"]
        assert found.run["accuracy"] == local.run["accuracy"]
        assert {a.adapter.version for a in agents} == {2}
        assert len({a.adapter.digest for a in agents}) == 1
        facts = [a.spool.facts() for a in agents]
        assert all(f.came == f.waiting + f.out + f.taken + f.dropped == 18 for f in facts)
        sent = local.devices.groupby("device")["uploaded_samples"].sum()
        assert [f.out + f.taken for f in facts] == sent.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mmpg", "mmpg_cdc"])
def test_agents_of_clips_give_the_ledger_of_a_simulated_fleet_and_wear_their_own(
    method, clip_settings, make_bundle, tmp_path
):
    settings = clip_settings(method=method, run_receipts=True, rounds=2, **{"cloud.steps": 1})
    local = results.read(run_local(parse(settings), roundtrip=True))
    bundles = [make_bundle(settings, number) for number in range(4)]
    with running(bundles) as agents:
        found = deployed({**settings, "run.out-dir": str(tmp_path / "deployed")}, bundles)
        assert found.run["ledger_digest"] == local.run["ledger_digest"]
        assert found.personal.equals(local.personal)
        assert all(a.adapter.version > 0 for a in agents)
        assert len({a.adapter.digest for a in agents}) == 4


@pytest.mark.parametrize("method", ["mmpg", "mmpg_cdc"])
def test_devices_with_clips_of_their_own_get_adapters_of_their_own(
    method, clip_bundle, clip_settings, tmp_path
):
    settings = clip_settings(method=method, devices=2, rounds=2, **{"cloud.steps": 1, "mmpg.steps": 1})
    bundles = [clip_bundle(number, method=method) for number in range(2)]
    for number, folder in enumerate(bundles):
        for shade in range(4):
            (folder / "feed" / f"{shade}.png").write_bytes(fed.picture(60 * shade + number, size=(8, 8)))
        names = [f"{shade}.png" for shade in range(4)]
        asked = ("what moves?", "did they meet?")[number:]
        rows = [fed.clip_row(names[i:], question) for i, question in enumerate(asked)]
        (folder / "feed" / QUESTIONS).write_bytes(b"".join(rows))
    with running(bundles) as agents:
        last = time.monotonic() + 60
        while not all(agent.spool.facts().came for agent in agents) and time.monotonic() < last:
            time.sleep(0.01)
        found = deployed({**settings, "run.out-dir": str(tmp_path / "deployed")}, bundles)
        assert found.status == "completed"
        assert found.devices.groupby("device")["uploaded_samples"].sum().tolist() == [2, 1]
        assert found.devices["status"].eq("ok").all()
        assert all(a.adapter.version > 0 for a in agents)
        assert len({a.adapter.digest for a in agents}) == 2


# --- one device, without a cloud ----------------------------------------------------------------------------


def answered(agent: Agent, order: Order) -> RecordDict:
    """What the mover would take to the cloud."""
    agent.mailbox.put(order)
    agent.step()
    reply = agent.mailbox.reply(order.round)
    assert reply is not None
    assert reply.error == ""
    return state_of(reply.content)


def sent(reply: RecordDict) -> int:
    """Samples in a reply, as the device says."""
    return reply.metric_records[keys.METRICS][keys.UPLOADED]  # type: ignore[return-value]


def whole(agent: Agent) -> Facts:
    facts = agent.spool.facts()
    assert facts.came == facts.waiting + facts.out + facts.taken + facts.dropped
    return facts


def same(one: RecordDict, other: RecordDict) -> bool:
    """Equal but for the seconds that the work took."""
    for reply in (one, other):
        reply.metric_records[keys.METRICS][keys.SECONDS] = 0.0
    return state_bytes(one) == state_bytes(other)


def test_samples_whose_reply_was_taken_are_gone_and_the_others_wait(begin, order):
    agent = begin()
    up = sent(answered(agent, order(1)))
    assert 0 < up < 6  # the budget does not take all
    assert (whole(agent).out, agent.spool.facts().waiting) == (up, 6 - up)
    answered(agent, order(2, taken=1))
    assert whole(agent).taken == up
    again = agent.spool.facts().out
    answered(agent, order(3, taken=1))  # the reply of round 2 never arrived
    assert whole(agent).taken == up
    assert again > 0
    answered(agent, order(4, taken=3))
    assert whole(agent).came == 18
    assert [whole(agent).dropped, agent.spool.facts().waiting > 0] == [0, True]


def test_after_the_stream_has_ended_what_is_left_goes_up_until_nothing_is(begin, order):
    agent, round = begin(), 0
    while round < 40 and (round < 4 or whole(agent).waiting + whole(agent).out):
        round += 1
        answered(agent, order(round, taken=round - 1))
    assert round < 40
    assert whole(agent).taken == whole(agent).came == 18


def test_samples_that_the_cloud_refuses_are_tried_again_and_then_dropped(begin, order, picture):
    agent, round, lost = begin(feed="folder", longest_question=20), 0, list[int]()
    agent.ask("what is this?", picture)
    agent.ask("where is it?", picture)
    while whole(agent).waiting + whole(agent).out and round < 20:
        round += 1
        answered(agent, order(round, refused=round - 1))  # this cloud refuses all
        lost.append(whole(agent).refused)
    assert lost[:TRIES] == [0] * TRIES
    assert lost[-1] == whole(agent).came == 2
    agent.ask("what is this?", picture)
    assert sent(answered(agent, order(round + 1, refused=round))) == 1  # and it goes on


def test_an_agent_that_is_killed_before_it_replies_does_the_order_again(begin, order, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    agent = begin()
    agent.mailbox.put(order(1))
    with monkeypatch.context() as patch:
        patch.setattr(orders, "synced", killed)  # all is computed, nothing of it is written
        with pytest.raises(Killed):
            agent.step()
    assert whole(agent).waiting == whole(agent).came == 6
    agent = begin()
    assert agent.mailbox.waits() == order(1)
    assert agent.step()
    reply = agent.mailbox.reply(1)
    assert reply is not None
    assert whole(agent).out == sent(state_of(reply.content)) > 0
    assert whole(agent).came == 6


def test_an_agent_that_is_killed_after_it_replied_delivers_that_reply_once(begin, order):
    agent = begin()
    first = answered(agent, order(1))
    state = agent.state
    agent = begin()
    assert agent.state == state
    assert not agent.do_order()
    agent.mailbox.put(order(1))  # it was not delivered: the cloud asks again
    assert not agent.do_order()
    reply = agent.mailbox.reply(1)
    assert reply is not None
    assert state_of(reply.content) == first
    assert whole(agent).out == sent(first)
    answered(agent, order(2, taken=1))
    assert whole(agent).taken == sent(first)


def test_a_round_that_is_asked_again_in_another_way_is_done_anew_with_the_same_samples(begin, order):
    agent = begin()
    first = answered(agent, order(1))
    second = answered(agent, order(1, more=1))
    assert same(first, second)
    assert whole(agent).out == sent(first)
    assert whole(agent).came == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"work": "os:system"}, "work 'os:system' is unknown"),
        ({"work": "clients.labelled:work", keys.LABELS: keys.TRUE}, "no labels on a device"),
        ({"taken": "x"}, "receipt 'x'"),
        ({"refused": 1.5}, "receipt 1.5"),
        ({"work": "clients.fedavg:work"}, "Error"),
    ],
)
def test_an_order_that_cannot_be_done_is_an_error_and_the_agent_goes_on(begin, order, change, says):
    agent = begin()
    agent.mailbox.put(order(1, **change))
    assert agent.step()
    reply = agent.mailbox.reply(1)
    assert reply is not None
    assert says in reply.error
    assert whole(agent).out == 0
    assert sent(answered(agent, order(2))) > 0


@pytest.mark.parametrize("work", ["cema", "released", "static", "tent", "cotta"])
def test_without_samples_a_device_gives_an_empty_reply_whatever_the_work(begin, order, work, picture):
    agent, asked = begin(feed="folder", longest_question=20), {"batch": 4, "lr": 0.01, keys.SURE: 0.5}
    asked |= {"views": 2, "threshold": 0.5, "ema": 0.9}
    for round in (1, 2):
        reply = answered(agent, order(round, work=f"clients.{work}:work", **asked))
        assert keys.ARRAYS not in reply
        assert agent.ask("what is this?", picture, spool=False).entropy > 0
    assert (whole(agent).came, agent.done.errors) == (0, 0)


def test_bytes_that_are_no_order_are_an_error_and_the_agent_goes_on(begin, order):
    agent = begin()
    agent.mailbox.put(Order(1, b"\xff" * 50))
    assert agent.step()
    reply = agent.mailbox.reply(1)
    assert reply is not None
    assert "OrderError" in reply.error
    assert sent(answered(agent, order(2))) > 0


def updated(agent: Agent, order, round: int, version: int, adapter: Adapter | None = None) -> RecordDict:
    """A round with an update to a version: a snapshot of an adapter."""
    own = agent.student.resident
    adapter = adapter or Adapter.of(own.initial.flat + np.float32(version / 1024), version)
    made = order(round, version=version)
    content = state_of(made.content)
    content.config_records[keys.CONFIG][keys.VERSION] = version
    content[keys.ARRAYS] = payload(update.snapshot_frame(adapter.flat, version, own.layout.digest))
    return answered(agent, Order(round, state_bytes(content)))


def test_an_update_is_there_after_every_restart_and_an_adapter_that_is_damaged_is_told(begin, order):
    agent = begin()
    initial = agent.adapter
    updated(agent, order, 1, 3)
    held = agent.adapter
    assert (held.version, held.digest != initial.digest) == (3, True)
    session().shelf(SHELF).clear()  # a new process has read nothing yet
    agent = begin()
    assert agent.adapter == held
    (file,) = agent.bundle.adapters.glob("*.npy")
    file.write_bytes(file.read_bytes()[:100])
    session().shelf(SHELF).clear()
    agent = begin()
    assert agent.adapter == initial
    reply = answered(agent, order(2))
    assert reply.metric_records[keys.METRICS][keys.VERSION] == 0
    assert reply.config_records[keys.CONFIG][keys.DIGEST] == initial.digest
    updated(agent, order, 3, 3)
    assert agent.adapter == held


def test_the_adapter_is_on_the_disk_before_the_state_names_it(begin, order, monkeypatch):
    agent, synced = begin(), []
    write = agent.spool.database.know

    def know(key, value):
        if key == "state":
            assert synced
            assert {path.stem for path in agent.bundle.adapters.glob("*.npy")} <= synced[-1]
        write(key, value)

    def sync(folder):
        synced.append({path.stem for path in folder.glob("*.npy")})

    monkeypatch.setattr(orders, "synced", sync)
    monkeypatch.setattr(agent.spool.database, "know", know)
    updated(agent, order, 1, 2)
    updated(agent, order, 2, 5)
    assert len(synced) == 2
    assert len(list(agent.bundle.adapters.glob("*.npy"))) == 1  # and what nobody needs is gone


def test_an_old_adapter_that_cannot_be_removed_costs_no_reply(begin, order, monkeypatch):
    def readonly(*_):
        raise OSError("read-only")

    agent = begin()
    monkeypatch.setattr("clients.device.agent.sweep", readonly)
    assert sent(answered(agent, order(1))) == whole(agent).out > 0


def test_a_device_that_holds_back_sends_no_sample_and_takes_the_update(begin, order, monkeypatch):
    agent = begin()
    monkeypatch.setattr(conditions, "read", lambda state: Conditions(battery=0.01, charging=False))
    reply = updated(agent, order, 1, 2)
    assert (sent(reply), keys.ARRAYS in reply, agent.adapter.version) == (0, False, 2)
    assert "battery" in agent.done.held_back
    assert whole(agent).waiting == 6
    monkeypatch.setattr(conditions, "read", lambda state: Conditions())
    assert sent(answered(agent, order(2))) >= 0
    assert agent.done.held_back == ""


def test_a_folder_is_answered_spooled_and_sent_and_read_once(begin, order, picture):
    agent = begin(feed="folder", longest_question=20)
    for i in range(3):
        (agent.bundle.feed / f"{i}.png").write_bytes(picture)
    rows = [{"image": f"{i % 3}.png", "question": f"what is this {i}?"} for i in range(5)]
    rows.insert(2, {"image": "1.png", "question": "what is this? " * 20})  # longer than the cloud takes
    (agent.bundle.feed / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert agent.step()
    assert not agent.step()
    assert (whole(agent).waiting, agent.done.refused, agent.done.answered) == (5, 1, 5)
    agent = begin(feed="folder", longest_question=20)
    assert not agent.step()
    assert sent(answered(agent, order(1))) == whole(agent).out > 0


def test_rows_of_no_use_are_not_read_again_by_the_next_agent(begin, caplog, monkeypatch):
    agent = begin(feed="folder", longest_question=20)
    (agent.bundle.feed / "questions.jsonl").write_text("of no use\n" * 3)
    assert not agent.step()
    assert "3 of them" in caplog.text
    with monkeypatch.context() as during:
        during.setattr(type(agent.spool), "add", None)  # what is known is not written again
        assert not agent.step()
    caplog.clear()
    agent = begin(feed="folder", longest_question=20)
    assert not agent.step()
    assert "of them" not in caplog.text


def test_a_question_that_is_asked_is_answered_and_is_a_sample(begin, picture):
    agent = begin(feed="folder", longest_question=20)
    said = agent.ask("what is this?", picture)
    assert (said.text, said.version) == (agent.ask("what is this?", picture, spool=False).text, 0)
    assert whole(agent).waiting == 1
    assert agent.spool.waiting(1)[0].picture == b""


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["jpeg", "patches"])
def test_a_device_that_is_to_send_pictures_does_and_keeps_them_until_they_are_taken(
    unit, device_settings, make_bundle, order, picture
):
    """Slow: a student of its own. Where tokens go up, a picture is neither kept nor sent; see above."""
    settings = {**device_settings, "uplink.unit": unit, "uplink.budget": 20_000}
    bundle = make_bundle(settings, feed="folder", longest_question=20)
    (bundle / "feed").mkdir(exist_ok=True)
    (bundle / "feed" / "a.png").write_bytes(picture)
    rows = [{"image": "a.png", "question": f"what is this {i}?"} for i in range(3)]
    (bundle / "feed" / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with start.opened(bundle) as agent:
        assert agent.step()
        assert [s.picture for s in agent.spool.waiting(9)] == [picture] * 3
        reply = answered(agent, order(1))
        shared, frame = agent.student.shared, frame_of(reply)
        batch, _ = picture_batch.decode(frame, unit, shared.patch, shared.fits, shared.vocab, len(frame))
        assert len(batch.samples) == sent(reply) == whole(agent).out == 3
        assert all(sample.picture for sample in batch.samples)
        answered(agent, order(2, taken=1))
        assert agent.spool.database.rows("SELECT count(picture) FROM samples") == [(0,)]
        assert whole(agent).taken == 3


def test_a_full_disk_stops_no_agent(begin, order, monkeypatch, caplog):
    agent, stop = begin(), threading.Event()
    agent.mailbox.put(order(1))
    tries = []

    def full(*_):
        tries.append(1)
        if len(tries) == 3:
            stop.set()
        raise DatabaseError("'device.db' cannot be used: database or disk is full")

    monkeypatch.setattr(agent.mailbox.database, "transaction", full)
    monkeypatch.setattr("clients.device.agent.AGAIN", 0.0)
    agent.run(stop)
    assert len(tries) >= 3
    assert "disk is full" in caplog.text


OPENED = """
import pathlib, sys
seen = set()
sys.addaudithook(lambda event, args: event == "open" and isinstance(args[0], str) and seen.add(args[0]))
from clients.device import start
from clients.device.mailbox import Order
with start.opened(pathlib.Path(sys.argv[1])) as agent:
    agent.mailbox.put(Order(1, pathlib.Path(sys.argv[2]).read_bytes()))
    assert agent.step()
    assert not agent.mailbox.reply(1).error
print("\\n".join(seen))
"""


@pytest.mark.slow
def test_a_device_opens_no_file_of_the_teacher_or_of_the_cloud(
    begin, order, cloud_folder, pair_folder, tmp_path
):
    folder = begin().bundle.folder
    assert not [path for path in folder.rglob("*") if "teacher" in path.name]
    begin(feed="folder", longest_question=20)
    (tmp_path / "order").write_bytes(order(1).content)
    (folder / "device.toml").write_text('feed = "stream"')
    shutil.rmtree(folder / "state")
    said = subprocess.run(
        [sys.executable, "-c", OPENED, str(folder), str(tmp_path / "order")],
        capture_output=True,
        text=True,
        check=True,
    )
    opened = said.stdout.splitlines()
    assert [path for path in opened if path.startswith(str(folder / "models"))]
    assert not [path for path in opened if path.startswith((str(pair_folder), str(cloud_folder)))]
    assert not [path for path in opened if "teacher" in path and not path.endswith(".py")]
