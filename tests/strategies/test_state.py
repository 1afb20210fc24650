"""A model of whole rounds of CDC: the strategy and the device's own code for updates, over a grid that
loses, delays, repeats and cuts messages, with devices that lose their state and a cloud that goes back to
a checkpoint.

Claims after every round: a device whose version and digest the mirror knows holds that adapter bit for bit;
no device raises; every byte that was sent is in the ledger, and was received, lost or is on its way. And
whatever happened before: two quiet rounds, and all devices hold the cloud's adapter and send their samples.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cdc_flower.cloud.distill import Learned
from cdc_flower.config import parse
from cdc_flower.downlink.versions import Mirror
from cdc_flower.fleet.engines.local_grid import LocalGrid
from cdc_flower.models.adapters import Layout
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.sample import Batch, Sample
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.messages import frame_of, message_bytes, over_the_wire, payload
from clients import cdc as device_work
from clients.store import Adapter, Store
from clients.task import Resident
from strategies import cdc
from strategies.fleet import Asked, Fleet

LAYOUT = Layout(("a", "b"), ((6, 5), (10,)))
INITIAL = np.round(np.random.default_rng(0).standard_normal(LAYOUT.total) * 2**20).astype(np.float32) / 2**20
CONFIG = parse({"run.devices": 3, "run.samples-per-round": 4})
GRID = (4, 2, 2)
PAIR = SimpleNamespace(
    text=SimpleNamespace(words=lambda ids: ""),
    grid=GRID,
    fits=lambda grid: grid == GRID,
    width=8,
    vocab=9,
    transform_for=lambda up: None,
)
TEACHER = SimpleNamespace(own=None, tokens=True)  # reads what the student reads
LINE = (LAYOUT, "dyadic", 150, 3)
STUDENT = Resident(None, LAYOUT, Adapter.of(INITIAL, 0))  # type: ignore[arg-type]

QUIET = "arrives"
FATES = st.sampled_from([QUIET, QUIET, "lost", "late", "twice", "cut", "reply lost", "reply cut"])


class Cloud:
    """Learns a random step, the same in every run."""

    def __init__(self):
        self.rng = np.random.default_rng(1)

    def learn(self, samples, round, weights=None):
        step = self.rng.standard_normal(LAYOUT.total).astype(np.float32)
        return Learned(INITIAL + step, len(samples), 0, {}, [""] * len(samples))


def device_app() -> ClientApp:
    """Devices that take updates as `clients.cdc` does and send one made-up sample."""
    app = ClientApp()

    @app.query()
    def query(message, context):
        device = context.node_config["partition-id"]
        return Message(RecordDict({"metrics": MetricRecord({"partition-id": device})}), reply_to=message)

    @app.train()
    def train(message, context):
        device, order = context.node_config["partition-id"], message.content["config"]
        own = {"sent": message.content, "store": Store.of(context)}
        task = SimpleNamespace(config=CONFIG, device=device, order=order, **own)
        adapter, current = device_work.updated(task, STUDENT)
        sample = Sample(0, GRID, np.array([1]), [1], [2], 0.5, tokens=np.ones((1, 8), np.float32))
        batch = Batch(device, order["server-round"], adapter.version, (sample,))
        frame = token_batch.encode(batch, PAIR.width, 3) if current else b""
        metrics = {"version": adapter.version, "uploaded": int(current), "tokens": int(current)}
        metrics |= {**Counts().metrics(), "host-seconds": 0.0}
        return Message(device_work.reply(frame, adapter.digest, metrics), reply_to=message)

    return app


def _cut(message: Message) -> Message:
    """The message with its frame cut in half."""
    frame = frame_of(message.content)
    if not frame:
        return message
    content = RecordDict(dict(message.content))
    content["arrays"] = payload(frame[: len(frame) // 2])
    return Message(content=content, metadata=message.metadata)  # type: ignore[call-overload]


class Unreliable(LocalGrid):
    """`fates` says what becomes of each device's message in the next round; `bytes` counts both ways."""

    def __init__(self):
        super().__init__(device_app(), 3, {})
        self.fates: dict[int, str] = {}
        self.late: list[Message] = []
        self.bytes: Counter[str] = Counter()

    def send_and_receive(self, messages, *, timeout=None):
        if not self.fates:
            return super().send_and_receive(messages)
        messages = list(messages)
        self.push_messages(messages)
        waiting, self.late = self.late, []
        for message in waiting:
            self._deliver(message)
        by_node = {node: self.fates[n.device] for node, n in self._nodes.items()}
        fated = [(message, by_node[message.metadata.dst_node_id]) for message in messages]
        return [reply for message, fate in fated for reply in self._play(message, fate)]

    def _deliver(self, message: Message) -> Message:
        self.bytes["down"] += message_bytes(over_the_wire(message).content)
        reply = self._work(message)
        assert not reply.has_error(), reply.error.reason
        return reply

    def _play(self, message: Message, fate: str) -> list[Message]:
        size = message_bytes(message.content)
        if fate == "late":
            self.late.append(message)
            return []
        if fate == "lost":
            self.bytes["down lost"] += size
            return []
        if fate == "twice":
            self._deliver(message)
            self.bytes["down again"] += size
        if fate == "cut":
            message = _cut(message)
            self.bytes["down lost"] += size - message_bytes(message.content)
        reply = self._deliver(message)
        if fate == "reply lost":
            return []
        reply = _cut(reply) if fate == "reply cut" else reply
        self.bytes["up"] += message_bytes(over_the_wire(reply).content)
        return [reply]


class Rounds(RuleBasedStateMachine):
    """The three classes are what is under test."""

    strategy, mirror, fleet = cdc.CDC, Mirror, Fleet

    def __init__(self):
        super().__init__()
        fleet = self.fleet(devices=3, seed=0, share=1.0, min_devices=0)
        mirror = self.mirror(INITIAL, *LINE)
        self.cdc = self.strategy(fleet, Cloud(), mirror, PAIR, TEACHER, CONFIG, None)  # type: ignore[arg-type]
        self.grid, self.number = Unreliable(), 0
        self.saved = mirror.state(), self.cdc.lineage.state()

    @rule(fates=st.tuples(FATES, FATES, FATES))
    def a_round(self, fates):
        self.number += 1
        messages = self.cdc.configure_train(self.number, None, None, self.grid)  # type: ignore[arg-type]
        self.grid.fates = dict(enumerate(fates))
        self.cdc.aggregate_train(self.number, self.grid.send_and_receive(messages))

    @rule()
    def the_cloud_saves(self):
        self.saved = self.cdc.lineage.mirror.state(), self.cdc.lineage.state()

    @rule(remembers=st.booleans())
    def the_cloud_goes_back(self, remembers):
        line, strategy = self.saved
        self.cdc.lineage.mirror.load(line)
        self.cdc.lineage.load(strategy)
        if not remembers:
            self.cdc.lineage.known = {}

    @rule(device=st.integers(0, 2))
    def a_device_loses_its_state(self, device):
        self.grid.context(device).state = RecordDict()

    @rule()
    def two_quiet_rounds_bring_all_to_the_newest(self):
        self.a_round([QUIET] * 3)
        newest, digest = self.cdc.lineage.mirror.newest, self.cdc.lineage.mirror.digest
        self.a_round([QUIET] * 3)
        assert self.cdc.metrics["uploaded"] == 3
        assert self.cdc.metrics["stale"] == 0
        for device in range(3):
            adapter = Store.of(self.grid.context(device)).held(STUDENT.initial)
            assert (adapter.version, adapter.digest) == (newest, digest)
            assert adapter.flat.tobytes() == self.cdc.lineage.mirror.adapter(newest).tobytes()

    @invariant()
    def a_device_that_the_mirror_knows_holds_what_the_mirror_says(self):
        mirror = self.cdc.lineage.mirror
        for device in range(3):
            adapter = Store.of(self.grid.context(device)).held(STUDENT.initial)
            if mirror.frame_for(adapter.version, adapter.digest) is None:
                assert adapter.flat.tobytes() == mirror.adapter(mirror.newest).tobytes()

    @invariant()
    def no_byte_is_lost_from_the_ledger(self):
        moved, totals = self.grid.bytes, self.cdc.fleet.ledger.totals()
        in_the_air = sum(message_bytes(message.content) for message in self.grid.late)
        received = moved["down"] - moved["down again"]
        assert totals["downlink_bytes"] == received + moved["down lost"] + in_the_air
        assert totals["uplink_bytes"] == moved["up"]
        assert len(self.cdc.fleet.ledger) == 3 * self.number


QUICK = settings(max_examples=20, stateful_step_count=15, deadline=None)
LONG = settings(QUICK, max_examples=1000, stateful_step_count=50)


def test_rounds_over_an_unreliable_network_end_with_equal_adapters_and_every_byte_counted():
    run_state_machine_as_test(Rounds, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_long_lives_over_an_unreliable_network():
    run_state_machine_as_test(Rounds, settings=LONG)


class Trusting(Mirror):
    """Takes a version's number for the adapter."""

    def frame_for(self, version, digest=None, jumps="all"):
        return super().frame_for(version, None, jumps)


class Stubborn(cdc.CDC):
    """Never believes that a device has gone back."""

    def _take(self, device, reply):
        before = self.lineage.known.get(device)
        taken = super()._take(device, reply)
        if before is not None:
            self.lineage.known[device] = max(before, self.lineage.known[device])
        return taken


class Forgiving(Fleet):
    """Enters no bytes for a device that did not answer."""

    def _enter(self, device, read):
        if read.status == "missing":
            self._asked[device] = Asked(self.round_of(device), 0)
        super()._enter(device, read)


@pytest.mark.parametrize(
    "broken",
    [
        {"mirror": Trusting},
        pytest.param({"strategy": Stubborn}, marks=pytest.mark.slow),  # found after hundreds of lives
        {"fleet": Forgiving},
    ],
    ids=["mirror", "strategy", "fleet"],
)
def test_the_model_finds_what_is_broken(broken):
    found = settings(
        QUICK,
        max_examples=300,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(type("Broken", (Rounds,), broken), settings=found)
