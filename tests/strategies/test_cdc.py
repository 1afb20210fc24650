"""CDC as a strategy of its own: in another person's app, against devices that send nonsense, and what it
hands on.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

from cdc_flower.cloud.distill import Learned
from cdc_flower.config import parse
from cdc_flower.data.world import load_world
from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Mirror
from cdc_flower.fleet.engines.local_grid import LocalGrid
from cdc_flower.models import adapters
from cdc_flower.models.adapters import Layout
from cdc_flower.models.shared import load_shared
from cdc_flower.models.teacher import Teacher
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.sample import Batch, Sample
from cdc_flower.wire import gate
from cdc_flower.wire.messages import frame_of, payload
from clients.client_app import app as client_app
from clients.store import Adapter, Store
from clients.task import resident
from strategies import cdc
from strategies.devices import FleetError
from strategies.fleet import Fleet
from strategies.pictures import Example, pictures
from strategies.run import prepare

LAYOUT = Layout(("a", "b"), ((4, 4), (3,)))


def says(version) -> MetricRecord:
    return MetricRecord({"version": version, "uploaded": 0, "tokens": 0})


class FakeCloud:
    """Learns by adding one to every weight; remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[int, list]] = []
        self.adapter = np.zeros(LAYOUT.total, np.float32)

    def learn(self, samples, round, weights=None) -> Learned:
        self.given.append((round, list(samples)))
        self.weights = None if weights is None else weights.tolist()
        self.adapter = self.adapter + 1
        return Learned(
            self.adapter, len(samples), 0, {"ce": 0.5}, [f"answer {len(self.given)}"] * len(samples)
        )


@pytest.fixture
def play(strategy, fake_devices):
    """`play(frame_of_device, rounds=1)`: devices up to date; each sends `frame_of_device(device, round)`."""

    def run(frame_of_device, rounds=1):
        def train(device, content):
            order = content["config"]
            has = {"digest": strategy.lineage.mirror.digest}
            reply = RecordDict({"metrics": says(order["version"]), "config": ConfigRecord(has)})
            if frame := frame_of_device(device, order["server-round"]):
                reply["arrays"] = payload(frame)
            return reply

        return strategy.start(fake_devices(train), strategy.initial_arrays(), num_rounds=rounds)

    return run


def batch(device: int, round: int, shared, places=(0, 5)) -> bytes:
    tokens = np.full((len(places), shared.width), device, np.float32)
    sample = Sample(0, shared.grid, np.array(places, np.uint16), [7 + device], [8], 0.5, tokens=tokens)
    return token_batch.encode(Batch(device, round, 0, (sample,)), shared.width, 3, shared.transform)


@pytest.fixture
def strategy(shared) -> cdc.CDC:
    config = parse({"run.devices": 3, "run.samples-per-round": 4})
    mirror = Mirror(np.zeros(LAYOUT.total, np.float32), LAYOUT, "fp16", 10_000, 4)
    return cdc.CDC(Fleet.of(config), FakeCloud(), mirror, shared, Teacher(None, ""), config, None)


def test_it_works_in_another_persons_app(run_settings):
    settings = run_settings(rounds=2)
    app, kept = ServerApp(), {}

    @app.main()
    def main(grid, context):
        config = parse(context.run_config)
        setup = prepare(config)
        strategy = cdc.CDC.build(setup)
        strategy.fleet.judge = setup.world.judge  # a simulation knows what is right
        kept["first"] = strategy.initial_arrays()["p"].numpy()
        kept["result"] = strategy.start(grid, strategy.initial_arrays(), num_rounds=config.run.rounds)

    app(LocalGrid(client_app, 3, settings), Context(1, 1, {}, RecordDict(), settings))
    assert not np.array_equal(kept["result"].arrays["p"].numpy(), kept["first"])
    assert kept["result"].train_metrics_clientapp[2]["answered"] == 3
    assert sum(kept["result"].evaluate_metrics_clientapp[1]["source"]) > 0


def test_samples_reach_the_cloud_in_the_order_of_the_devices(strategy, play, shared):
    play(lambda d, r: batch(d, r, shared))
    ((round, samples),) = strategy.cloud.given
    assert round == 1
    assert [s.question_ids for s in samples] == [[7], [8], [9]]
    assert [s.positions.tolist() for s in samples] == [[0, 5]] * 3
    assert samples[0].question_ids == [7]


def test_result_arrays_are_the_newest_adapter_of_the_mirror(strategy, play, shared):
    result = play(lambda d, r: batch(d, r, shared), rounds=3)
    np.testing.assert_array_equal(result.arrays["p"].numpy(), np.full(LAYOUT.total, 3.0, np.float32))
    assert strategy.lineage.mirror.newest == 3


def test_an_update_that_carries_little_is_said_once(strategy, play, shared, monkeypatch):
    said = []
    monkeypatch.setattr(cdc, "log", lambda level, line: said.append(line))
    monkeypatch.setattr(cdc, "LITTLE", 1.5)
    play(lambda d, r: batch(d, r, shared), rounds=2)
    assert strategy.metrics["sent_energy"] == pytest.approx(1)
    (line,) = said
    assert "an update carries 100.0% of the energy" in line
    assert "downlink.budget of about" in line


def test_samples_of_an_older_version_count_less(strategy, play, shared):
    play(lambda d, r: batch(d, r, shared), rounds=4)  # the batches say version 0; the mirror is at 3
    assert strategy.cloud.weights == [0.5] * 3


@pytest.mark.parametrize("nonsense", [b"nonsense", b"CDCF" + bytes(40)])
def test_a_damaged_frame_is_counted_and_the_round_goes_on(strategy, play, shared, nonsense):
    play(lambda d, r: nonsense if d == 1 else batch(d, r, shared))
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["ok", "refused", "ok"]
    assert len(strategy.cloud.given[0][1]) == 2


def test_a_frame_of_another_device_or_round_is_refused(strategy, play, shared):
    play(lambda d, r: batch(0, r, shared) if d < 2 else batch(2, r + 1, shared))
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["ok", "refused", "refused"]


def test_without_samples_there_is_no_new_version_and_nothing_goes_down(strategy, play):
    play(lambda d, r: b"", rounds=2)
    assert strategy.lineage.mirror.newest == 0
    assert strategy.cloud.given == []
    assert strategy.metrics == {"answered": 3, "stale": 0, "uploaded": 0, "version": 0}


def test_a_device_that_says_it_has_an_old_version_gets_what_it_missed(strategy, play, fake_devices, shared):
    first = strategy.lineage.mirror.digest
    play(lambda d, r: batch(d, r, shared), rounds=2)
    strategy.lineage.known[1] = (0, first)  # as after a restart of the device
    strategy.lineage.mirror.frame_for = lambda version, digest, jumps: b"%d %s" % (version, digest)
    sent = list(strategy.configure_train(3, None, None, fake_devices(None)))
    second = update.digest(strategy.lineage.mirror.adapter(1))
    assert [frame_of(m.content) for m in sent] == [b"1 " + second, b"0 " + first, b"1 " + second]


@pytest.mark.parametrize(
    "records",
    [
        {},
        {"metrics": says(0)},
        {"metrics": says(0), "config": ConfigRecord({"digest": b"short"})},
        {"metrics": says(0), "config": ConfigRecord({"digest": "8 letters"})},
        {"metrics": says(0.0), "config": ConfigRecord({"digest": bytes(8)})},
        {"config": ConfigRecord({"digest": bytes(8)})},
    ],
)
def test_a_device_that_does_not_say_what_it_has_is_refused(strategy, fake_devices, records):
    with pytest.raises(FleetError, match="0 of 3 devices answered"):
        strategy.start(fake_devices(lambda *_: RecordDict(records)), strategy.initial_arrays(), num_rounds=1)
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["refused"] * 3
    assert strategy.lineage.known == {}


def test_a_sample_without_tokens_is_refused(strategy, play, shared):
    play(lambda d, r: batch(d, r, shared, () if d == 1 else (3,)))
    assert [r.status for r in strategy.fleet.ledger.rows()] == ["ok", "refused", "ok"]
    assert "1 samples have no token; allowed: one or more" in strategy.fleet.ledger.rows()[1].reason


@pytest.mark.parametrize(("answers", "jumps"), [(True, "all"), (False, "start"), ("another", "none")])
def test_which_jumps_a_device_is_offered(strategy, play, fake_devices, shared, answers, jumps):
    strategy.fleet.min_devices = 0
    play(lambda d, r: batch(d, r, shared))
    digest = strategy.lineage.mirror.digest if answers is True else b"anothers"
    has = {"metrics": says(1), "config": ConfigRecord({"digest": digest})}
    grid = fake_devices(lambda *_: RecordDict(has))
    asked = list(strategy.configure_train(2, None, None, grid))
    strategy.aggregate_train(2, grid.send_and_receive(asked) if answers else [])
    again = cdc.CDC(
        strategy.fleet, strategy.cloud, strategy.lineage.mirror, shared, None, strategy.config, None
    )
    again.lineage.load(strategy.lineage.state())  # as after a restart of the cloud
    offered = []
    again.lineage.mirror.frame_for = lambda version, digest, jumps: offered.append(jumps)
    list(again.configure_train(3, None, None, grid))
    assert offered == [jumps] * 3


@pytest.mark.parametrize(("worth", "asked"), [((0.6, 0.9), 1), ((0.9, 0.6), 3), ((0.9, 0.9), 3)])
def test_a_teacher_that_is_worse_at_the_source_is_asked_what_devices_asked_and_no_more(
    worth, asked, run_settings, monkeypatch
):
    said, measured = [], dict(zip(("teacher", "student"), worth, strict=True))
    lessons = cdc.source_lessons
    monkeypatch.setattr(cdc, "log", lambda level, line, *values: said.append(line % values))
    monkeypatch.setattr(
        cdc, "source_lessons", lambda *given: dataclasses.replace(lessons(*given), worth=measured)
    )
    made = cdc.CDC.build(prepare(parse(run_settings(**{"cloud.questions": 3}))))
    assert made.cloud.config.cloud.questions == made.config.cloud.questions == asked
    assert made.cloud_work(4).taught == (4 if asked == 1 else 3 * 4 + 2 * 4)
    assert said == (
        [
            "on held-out source the teacher is worth 0.6, the student as shipped 0.9: it is asked no further "
            "questions about pictures (cloud.questions)"
        ]
        if asked == 1
        else []
    )


class Run:
    """CDC with the real cloud and the real devices, a round at a time."""

    def __init__(self, settings):
        config = parse(settings)
        self.grid = LocalGrid(client_app, 3, settings)
        self.strategy = cdc.CDC.build(prepare(config))
        self.layout, self.down = adapters.layout(self.strategy.model), config.downlink

    def round(self, number):
        """One round; how many devices lacked the newest adapter when they answered."""
        replies = self.grid.send_and_receive(self.strategy.configure_train(number, None, None, self.grid))
        metrics = self.strategy.aggregate_train(number, replies)[1]
        return metrics["uploaded"], metrics["stale"]

    def restore(self, state):
        down, first = self.down, resident(self.strategy.shared, self.strategy.config.pair).initial.flat
        mirror = Mirror(first, self.layout, down.codec, down.budget, down.history)
        mirror.load(state)
        return mirror


@pytest.mark.parametrize("remembered", [True, False])
def test_a_cloud_restored_from_an_older_checkpoint_brings_its_devices_along(run_settings, remembered):
    """Version 2 of the devices and version 2 of the restored cloud are two adapters."""
    run = Run(run_settings(rounds=6))
    mirror = run.strategy.lineage.mirror
    run.round(1)
    saved = mirror.state()
    run.round(2)
    run.strategy._learn = lambda round, samples, weights: (
        [""] * len(samples)
    )  # from here on the test makes the versions
    run.round(3)
    run.strategy.lineage.mirror = run.restore(saved)
    run.strategy.lineage.mirror.advance(run.strategy.lineage.mirror.adapter(1) + np.float32(0.01))
    assert mirror.newest == run.strategy.lineage.mirror.newest == 2
    if not remembered:  # the cloud lost what was said; a chain from version 0 fits none, a jump all
        run.strategy.lineage.known.clear()
        frame = run.strategy.lineage.mirror.frame_for(0)
        assert run.round(4)[1] == (0 if update.stands_alone(frame, 10**6) else 3)
    uploaded, stale = run.round(5)
    assert uploaded > 0
    assert stale == 0
    for device in range(3):
        adapter = Store.of(run.grid.context(device)).held(Adapter.of(np.zeros(0, np.float32), 0))
        now, before = (m.adapter(2).tobytes() for m in (run.strategy.lineage.mirror, mirror))
        assert adapter.version == 2
        assert adapter.flat.tobytes() == now != before


def test_examples_show_the_picture_the_device_saw(run_settings):
    config = parse(run_settings())
    shared = load_shared(config.pair, "scenes")
    world = load_world(config, shared)
    row = world.train.iloc[world.streams[2][1][3]]
    asked = shared.text.question_ids(str(row["question"]))
    sample = Sample(3, shared.grid, np.array([0, 63], np.uint16), asked, [], 1.0)
    (shown,) = pictures([Example(2, 2, sample, "red")], shared, world)
    assert shown["image"] == world.pack.train_images[row["image_id"]]
    assert (shown["side"], shown["positions"], shown["teacher_answer"]) == (8, [0, 63], "red")
    assert str(row["question"]).split()[0].lower() in shown["question"]


def test_the_gate_goes_down_once_something_was_learned_and_is_in_the_checkpoint(shared, fake_devices):
    config = parse({"run.devices": 3, "run.samples-per-round": 4, "uplink.sample-score": "worth"})
    mirror = Mirror(np.zeros(LAYOUT.total, np.float32), LAYOUT, "fp16", 10_000, 4)
    strategy = cdc.CDC(Fleet.of(config), FakeCloud(), mirror, shared, Teacher(None, ""), config, None)
    told = []

    def train(device, content):
        order = content["config"]
        told.append((order["server-round"], order.get("gate")))
        has = {"digest": strategy.lineage.mirror.digest}
        reply = RecordDict({"metrics": says(order["version"]), "config": ConfigRecord(has)})
        reply["arrays"] = payload(batch(device, order["server-round"], shared))
        return reply

    strategy.start(fake_devices(train), strategy.initial_arrays(), num_rounds=2)
    assert {round: g is None for round, g in told} == {1: True, 2: False}
    sent = gate.unpack(next(g for round, g in told if round == 2))
    assert gate.chance(sent, [gate.features([7], [8], 0.5)])[0] > 0.8  # the teacher said something else
    np.testing.assert_array_equal(strategy.parts()["gate"].state()["weights"], strategy.gate.weights)
    assert len(strategy.gate.packed()) == gate.BYTES
