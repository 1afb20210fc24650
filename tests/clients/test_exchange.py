"""What a device makes of updates: whole, damaged, of another line, twice; and the bytes around its frames."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict

from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Mirror
from cdc_flower.models import adapters
from cdc_flower.setting import MESSAGE_BYTES
from cdc_flower.wire.messages import frame_of, message_bytes
from clients import cdc
from clients.exchange import overhead
from clients.inference import alone
from clients.store import Adapter, Store
from clients.task import resident


def done(task) -> RecordDict:
    return alone(cdc.work(task))


def memory() -> Store:
    return Store(RecordDict())


@pytest.fixture
def line(make_task):
    """A mirror over the tiny student with three versions."""
    task = make_task()
    student = resident(task.shared, task.config.pair)
    mirror = Mirror(student.initial.flat, student.layout, "fp16", 10_000, 4)
    rng = np.random.default_rng(0)
    for _ in range(2):
        mirror.advance(
            mirror.adapter(mirror.newest) + rng.normal(0, 0.01, len(student.initial.flat)).astype(np.float32)
        )
    return mirror


def test_an_update_is_applied_and_kept(make_task, line):
    task = make_task(order={"version": 2}, frame=line.frame_for(0))
    content = done(task)
    adapter = task.store.held(resident(task.shared, task.config.pair).initial)
    flat, version = adapter.flat, adapter.version
    assert content["metrics"]["version"] == version == 2
    assert content["config"]["digest"] == update.digest(flat) == update.digest(line.adapter(2))
    np.testing.assert_array_equal(adapters.read(resident(task.shared, task.config.pair).model), flat)


@pytest.mark.parametrize("damage", ["other version", "broken", "absent"])
def test_an_update_that_cannot_be_applied_leaves_the_adapter_and_asks_for_another(make_task, line, damage):
    frame = {"other version": line.frame_for(1), "broken": line.frame_for(0)[:-3], "absent": None}[damage]
    here = memory()
    content = done(make_task(order={"version": 2}, frame=frame, store=here))
    assert content["metrics"]["version"] == 0
    assert content["config"]["digest"] == update.digest(line.adapter(0))
    assert frame_of(content) == b""
    assert content["metrics"]["uploaded"] == 0
    assert len(here.said(1)) == 6  # it did answer its samples
    again = done(make_task(order={"version": 2}, frame=line.frame_for(0), store=here))
    assert again["metrics"]["version"] == 2
    assert again["metrics"]["uploaded"] > 0


def test_a_device_reads_no_longer_chain_and_no_longer_frame_than_an_honest_cloud_sends(make_task, line):
    flat = line.adapter(0) + np.float32(0)
    payloads = {"dyadic": b"\x01\x00", "fp16": b"\x02" + bytes(2 * len(flat))}  # of nothing
    frames = {
        n: update.chain_frame([p] * 3, 0, line._layout, update.digest(flat)) for n, p in payloads.items()
    }
    assert len(frames["dyadic"]) < 100
    assert len(frames["fp16"]) > update.longest(len(flat))
    for codec, history, version in (("dyadic", 3, 3), ("dyadic", 2, 0), ("fp16", 3, 0)):
        content = done(make_task(order={"version": 3}, frame=frames[codec], downlink_history=history))
        assert content["metrics"]["version"] == version


def test_an_update_that_comes_twice_does_no_harm(make_task, line):
    task = make_task(order={"version": 2}, frame=line.frame_for(0))
    once, twice = done(task), done(task)
    assert frame_of(once) == frame_of(twice) != b""


def test_a_device_of_another_line_does_not_take_its_version_for_the_clouds(make_task, line):
    here = memory()
    task = make_task(order={"version": 2}, frame=line.frame_for(1), store=here)
    other = resident(task.shared, task.config.pair).initial.flat + np.float32(0.5)
    here.hold(Adapter.of(other, 2))
    content = done(task)
    assert content["metrics"]["version"] == 2
    assert content["config"]["digest"] == update.digest(other)
    assert frame_of(content) == b""
    frame = line.frame_for(2, update.digest(other))
    again = done(make_task(order={"version": 2}, frame=frame, store=here))
    assert again["config"]["digest"] == line.digest
    assert frame_of(again) != b""


def test_the_bytes_around_the_frame_are_foreseen_and_few(make_task):
    content = done(make_task())
    around = message_bytes(content) - len(frame_of(content))
    assert overhead() - 80 < around <= overhead() <= MESSAGE_BYTES
