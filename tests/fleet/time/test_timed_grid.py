"""Virtual time in front of a grid: who is there, who answers in time, and that the strategy need not know."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cdc_flower.fleet.cost import roofline
from cdc_flower.fleet.cost.charges import Charges
from cdc_flower.fleet.cost.profiles import Devices, read_profiles
from cdc_flower.fleet.engines.local_grid import LocalGrid, node_id
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.time.timed_grid import UNAVAILABLE, TimedGrid
from cdc_flower.fleet.time.trace_files import COLUMNS, from_frame
from cdc_flower.fleet.time.traces import Trace, always
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.fields import Number, Numbers
from cdc_flower.wire.messages import with_id
from cdc_flower.wire.reply import Form
from tests.fleet.cost.test_roofline import STUDENT

PROFILES = read_profiles()
SHAPES = roofline.shapes(STUDENT, 16)
PASS = 20 + SHAPES.patches  # positions
RULES = FleetConfig(mode="sync", deadline=100.0)
COUNTED = Numbers(Number(int, 0, 2**53), 6)
PI = PROFILES["pi4"]


def seconds_of(passes: float) -> float:
    """How long a pi4 works on a task of so many passes."""
    fleet = Charges(Devices.of([PI]), ("none",), SHAPES, SHAPES, 20, 1)
    return float(fleet.seconds(np.zeros(1, np.int64), [Counts(positions=passes * PASS)])[0])


def passes_for(seconds: float) -> float:
    return (seconds - seconds_of(0)) / (seconds_of(1) - seconds_of(0))


FORM = Form({keys.DEVICE: Number(int), keys.UPLOADED: Number(int, 0, 1), keys.COUNTS: COUNTED})


class World:
    """Four pi4, each working as long as it is told; counts what reaches them."""

    def __init__(
        self,
        *work: float,
        rules: FleetConfig = RULES,
        trace: Trace | None = None,
        wanted: int = 2,
        uploaded: int = 0,
    ):
        self.work, self.reached, self.uploaded = list(work), [], uploaded
        app = ClientApp()

        @app.train()
        def train(message, context):
            device = context.node_config["partition-id"]
            self.reached.append(device)
            if self.work[device] < 0:
                raise RuntimeError("broken")
            counts = Counts(positions=round(passes_for(self.work[device]) * PASS), decoded=1)
            metrics = {keys.DEVICE: device, **counts.metrics(), keys.UPLOADED: self.uploaded}
            return Message(RecordDict({keys.METRICS: MetricRecord(metrics)}), reply_to=message)

        @app.query()
        def query(message, context):
            return Message(RecordDict(), reply_to=message)

        n = len(work)
        charges = Charges(Devices.of([PI] * n), ("none",) * n, SHAPES, SHAPES, 20, 1)
        self.grid = TimedGrid(
            LocalGrid(app, n, {}),
            {d: node_id(d) for d in range(n)},
            rules,
            charges,
            trace or always(n),
            wanted,
            lambda: FORM,
            lambda samples: 7.0 * samples,
        )

    def ask(self, *devices: int, kind: str = "train") -> list[Message]:
        return list(
            self.grid.send_and_receive(
                [
                    Message(
                        RecordDict({"config": ConfigRecord({"order": 1})}),
                        dst_node_id=node_id(d),
                        message_type=kind,
                    )
                    for d in devices
                ]
            )
        )

    def round(self, *devices: int) -> list[int | tuple[int, str]]:
        """Who answered in a round; (error code, reason) of an error."""
        return [
            int(r.content[keys.METRICS][keys.DEVICE]) if r.has_content() else (r.error.code, r.error.reason)
            for r in self.ask(*devices)
        ]

    @property
    def now(self) -> float:
        return self.grid.clock.now


def trace_of(*rows: tuple, devices: int = 4) -> Trace:
    table = pd.DataFrame([(*row, False, False) for row in rows], columns=list(COLUMNS)).astype(COLUMNS)
    return from_frame(table, devices, 1000.0)


def test_work_is_charged_by_what_the_reply_says():
    assert seconds_of(passes_for(30.0)) == pytest.approx(30.0)
    world = World(30, 10, 20, 50)
    world.round(0)
    assert world.now == pytest.approx(30, abs=0.1)
    row = world.grid.table().iloc[0]
    assert row["work_seconds"] == pytest.approx(30, abs=1e-3)
    assert row["joules"] == pytest.approx(30 * PI.compute_power, rel=0.01)
    assert (row["profile"], row["compression"], row["fate"]) == ("pi4", "none", "in")


def test_a_reply_that_comes_too_late_is_absent():
    world = World(30, 10, 20, 50)
    assert world.round(0, 1, 2, 3) == [1, 2]
    assert world.now == pytest.approx(20, abs=0.1)
    assert world.grid.table()["fate"].tolist() == ["late", "in", "in", "late"]
    assert world.grid.last == pytest.approx(
        {
            "hours": world.now / 3600,
            "cloud_seconds": 0,
            "online": 0,
            "asked": 4,
            "in": 2,
            "late": 2,
            "away": 0,
            "flat": 0,
        }
    )


def test_who_is_away_is_no_node_and_is_never_reached():
    world = World(5, 5, 5, 5, trace=trace_of((0, 0.0, 1000.0), (1, 500.0, 600.0), (2, 0.0, 1000.0)))
    assert list(world.grid.get_node_ids()) == [node_id(0), node_id(2)]
    assert world.round(0, 1, 2) == [0, 2]
    assert world.reached == [0, 2]
    assert world.grid.table()["fate"].tolist() == ["in", "late", "in"]  # there again after the deadline
    assert world.grid.last["online"] == 2


def test_a_round_without_anybody_lasts_to_its_deadline():
    world = World(5, 5, 5, 5, trace=trace_of((0, 150.0, 160.0)))
    for until in (100.0, 200.0):
        assert list(world.grid.get_node_ids()) == []
        assert world.round() == []
        assert world.now == until
    assert world.round() == []  # nobody was asked for: no round
    assert world.now == 200.0


def test_other_messages_take_no_time():
    world = World(5, 5)
    world.grid.get_node_ids()
    assert len(world.ask(0, 1, kind="query")) == 2
    assert world.round() == []
    assert world.now == 0.0


def test_a_device_that_fails_answers_so_at_once():
    world = World(-1, 10)
    assert world.round(0, 1) == [(2, "<class 'RuntimeError'>:<'broken'>"), 1]
    assert world.now == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("uploaded", [0, 1])
def test_the_cloud_takes_its_time_for_the_samples_that_came_before_the_next_round(uploaded):
    world = World(30, 10, 20, 50, uploaded=uploaded)
    assert world.round(0, 1, 2, 3) == [1, 2]
    assert world.grid.last["cloud_seconds"] == 2 * 7.0 * uploaded
    assert world.grid.last["hours"] == pytest.approx(20 / 3600, abs=0.1 / 3600)
    assert world.now == pytest.approx(20 + 14.0 * uploaded, abs=0.1)


def test_an_answer_of_another_form_is_one_line_that_took_no_time():
    world = World(30, 10, 20, 50, uploaded=2)  # a task has one sample
    refused = (1000, "uploaded is 2; allowed: int from 0 to 1")
    assert world.round(0, 1, 2, 3) == [refused] * 4
    assert world.grid.last["cloud_seconds"] == 0
    assert (world.grid.table()["work_seconds"] == 0).all()


def test_a_long_error_is_kept_as_one_line(monkeypatch):
    world = World(30, 10)
    monkeypatch.setattr(world.grid.inner, "send_and_receive", lambda messages, timeout: _lies(messages))
    assert world.round(0, 1) == [(0, "a" * 199 + "…"), 1]


def _lies(messages) -> list[Message]:
    for i, message in enumerate(messages):
        with_id(message, f"m{i}")
    counts = {keys.DEVICE: 1, keys.UPLOADED: 0, **Counts().metrics()}
    good = Message(RecordDict({keys.METRICS: MetricRecord(counts)}), reply_to=messages[1])
    again = Message(RecordDict(), reply_to=messages[1])
    stranger = Message(RecordDict(), reply_to=with_id(World(1).grid.inner._work(messages[0]), "another"))
    return [stranger, Message(Error(2**40, "a" * 10**6), reply_to=messages[0]), good, again]


def test_an_answer_that_arrives_while_the_cloud_works_comes_in_the_next_round():
    world = World(30, 10, 15, 250, rules=FleetConfig(mode="async", buffer=2, deadline=100.0), uploaded=1)
    assert world.round(0, 1, 2) == [1, 2]
    assert world.now == pytest.approx(29, abs=0.1)
    assert world.round(1) == [0, 1]
    assert world.grid.table().query("round == 2")["begin"].item() == pytest.approx(29, abs=0.1)


def test_a_late_answer_that_is_taken_comes_in_the_round_of_its_arrival():
    world = World(30, 10, 15, 250, rules=replace(RULES, late="take"))
    assert world.round(0, 1, 2) == [1, 2]
    assert node_id(0) not in world.grid.get_node_ids()
    assert world.round(1, 2) == [0, 1, 2]
    assert world.grid.table().query("device == 0")["fate"].tolist() == ["late"]


def test_the_asynchronous_mode_ends_with_the_buffer_and_gives_up_at_the_deadline():
    world = World(30, 10, 15, 250, rules=FleetConfig(mode="async", buffer=1, deadline=100.0))
    assert world.round(0, 1, 2, 3) == [1]
    assert world.round(1) == [2]
    assert world.now == pytest.approx(15, abs=0.1)
    assert world.round() == []  # no nodes were asked for
    assert list(world.grid.get_node_ids()) == [node_id(2)]
    assert world.round() == [1]  # nobody new was asked; what is on its way goes on
    world.grid.get_node_ids()
    assert world.round() == [0]
    world.grid.get_node_ids()
    assert world.round() == [(UNAVAILABLE, "device 3: late")]
    assert world.now == 100.0
    assert world.grid.table()["fate"].tolist() == ["in", "in", "in", "late", "in"]
    assert world.grid.table().query("device == 3")["finish"].tolist() == [math.inf]


@pytest.mark.parametrize(
    ("rules", "given_up"),
    [
        (RULES, [0, 1]),
        (replace(RULES, late="take"), [0, 1, (UNAVAILABLE, "device 2: away")]),
        (FleetConfig(mode="async", buffer=2, deadline=2.5), [(UNAVAILABLE, "device 2: away")]),
    ],
)
def test_a_device_whose_answer_the_grid_never_gave_is_given_up_and_asked_again(rules, given_up, monkeypatch):
    world = World(1, 1, 1, rules=rules)
    with monkeypatch.context() as patched:
        _silenced(world, 2, patched)
        said = [world.round(0, 1, 2)]
    while 2 in world.grid.clock.pending.device:
        assert len(said) < 5
        world.grid.get_node_ids()
        said.append(world.round())
    assert said[-1] == given_up
    assert world.now < rules.deadline + 0.1
    assert node_id(2) in world.grid.get_node_ids()
    row = world.grid.table().query("device == 2").iloc[0]
    assert (row["fate"], row["finish"]) == ("away", math.inf)
    times = row[["download_seconds", "work_seconds", "upload_seconds", "offline_seconds", "wait_seconds"]]
    assert times.min() >= 0
    assert times.sum() <= rules.deadline
    assert 0 < row["joules"] <= rules.deadline * PI.compute_power
    assert world.round(2) == [2]


def _silenced(world: World, device: int, monkeypatch) -> None:
    """What the grid behind gives, but for one device's answers."""
    given = world.grid.inner.send_and_receive

    def without(messages, timeout):
        replies = given(messages, timeout=timeout)
        return [reply for reply in replies if reply.metadata.src_node_id != node_id(device)]

    monkeypatch.setattr(world.grid.inner, "send_and_receive", without)


def test_it_goes_on_from_its_state_with_answers_on_their_way():
    rules = FleetConfig(mode="async", buffer=1, deadline=100.0)
    world, other = World(30, 10, 15, 250, rules=rules), World(30, 10, 15, 250, rules=rules)
    world.round(0, 1, 2, 3)
    other.grid.load(world.grid.state())
    for grid in (world, other):
        grid.grid.get_node_ids()
    assert world.round(1) == other.round(1) == [2]
    assert world.grid.digest() == other.grid.digest()
    assert other.reached == [1]  # what was on its way is not worked on again


def test_a_round_is_one_list():
    world = World(5)
    with pytest.raises(ValueError, match="together"):
        world.grid.push_messages([Message(RecordDict(), dst_node_id=node_id(0), message_type="train")])


def test_compressions_cost_what_their_storage_and_arithmetic_cost():
    phones = Devices.of([PROFILES["phone-mid"]] * 2)
    fleet = Charges(phones, ("none", "int8"), SHAPES, SHAPES, 20, 1)
    none, int8 = fleet.seconds(np.arange(2), [Counts(positions=1000 * PASS)] * 2)
    assert int8 == pytest.approx(none / 4, rel=0.05)  # bound by arithmetic; this phone's int8 is four times


def test_training_costs_its_passes_and_decoding_its_reads():
    fleet = Charges(Devices.of([PI]), ("none",), SHAPES, SHAPES, 20, 1)
    one = np.zeros(1, np.int64)
    rest = fleet.seconds(one, [Counts(decoded=1)])
    trained = fleet.seconds(one, [Counts(decoded=1, trained=2 * PASS)])
    assert trained - rest == pytest.approx(2 * (seconds_of(1) - seconds_of(0)))
    step = roofline.decode(SHAPES, "none", PASS, 1)
    decoded = fleet.seconds(one, [Counts(positions=3, decoded=4)])  # the prefill gives the first
    assert decoded - rest == pytest.approx(3 * roofline.work_seconds(PI, [step]))
