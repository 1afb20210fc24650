"""Samples unlike A, repeated ones and too many of one device are dropped; honest ones are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdc_flower.checkpoint import load_newest, save
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.config import parse
from cdc_flower.results import read
from cdc_flower.uplink.sample import Batch, Sample
from strategies.answers import Answer, Taken
from strategies.doorkeeper import AFTERWARDS, REST, Doorkeeper, Known, apart, known
from strategies.received import Received
from strategies.run import prepare, run_local

RNG = np.random.default_rng(0)
A = RNG.normal(size=(256, 4)).astype(np.float32)
HELD = [RNG.normal(size=(8, 4)).astype(np.float32) for _ in range(64)]
NEAR = Known.of(A, HELD)


def batch(device: int, tokens: list[np.ndarray], round: int = 1) -> Answer:
    """A device's answer with a sample for each array of tokens."""
    rows = [CloudSample(t.astype(np.float32), np.arange(len(t)), [1, 2], (len(t), 1, len(t))) for t in tokens]
    sent = tuple(
        Sample(i, s.grid, s.positions.astype(np.uint16), s.question_ids, [], 0.0, s.tokens)
        for i, s in enumerate(rows)
    )
    value = Received(Batch(device, round, 0, sent), tuple(rows))
    return Answer("ok", "", None, Taken(value, len(rows), sum(map(len, tokens))))


def honest(count: int) -> list[np.ndarray]:
    """Tokens of samples that are like A."""
    return [A[RNG.permutation(len(A))[:8]] for _ in range(count)]


def taken(found: dict[int, Answer]) -> dict[int, int]:
    """Samples that were taken of each device; what is said of them agrees."""
    for read_ in found.values():
        value = read_.taken.value
        assert [len(s.tokens) for s in value.samples] == [len(s.tokens) for s in value.batch.samples]
        assert read_.taken.tokens == sum(len(s.tokens) for s in value.samples)
    return {d: read_.taken.samples for d, read_ in found.items()}


@pytest.fixture
def door() -> Doorkeeper:
    """Compares with `A`."""
    return Doorkeeper(2.0, lambda: NEAR)


def test_distances_are_those_of_the_nearest_row():
    samples = [A[:3] + 0.5, A[:0], HELD[0]]
    found = apart(samples, A)
    assert [len(d) for d in found] == [3, 0, 8]
    slow = np.linalg.norm(samples[2][:, None] - A[None], axis=2).min(1)
    np.testing.assert_allclose(found[2], slow, rtol=1e-6)


@pytest.mark.parametrize("scale", [100.0, 1e30])
def test_what_is_unlike_a_is_strange_and_what_is_held_of_a_is_not(scale):
    one = HELD[0].copy()
    one[3] *= scale
    assert NEAR.strange([*HELD, scale * HELD[0], one, HELD[0][:0]]) == {len(HELD), len(HELD) + 1}


def test_honest_samples_pass_as_they_came(door):
    came = {d: batch(d, honest(5 + d)) for d in range(3)}
    found = door.admitted(1, came)
    assert taken(found) == {0: 5, 1: 6, 2: 7}
    assert all(found[d].taken.value.samples == came[d].taken.value.samples for d in came)
    assert set(door.metrics.values()) == {0.0}


def test_a_sample_counts_once_whoever_sends_it_and_whenever(door):
    own, other = honest(4), honest(4)
    found = door.admitted(1, {0: batch(0, [*own, own[0]]), 1: batch(1, own[:3] + other)})
    assert taken(found) == {0: 4, 1: 4}
    assert taken(door.admitted(2, {0: batch(0, other), 2: batch(2, honest(4))})) == {0: 0, 2: 4}
    assert door.metrics["dropped_twice"] == 4


def test_no_device_gives_more_than_its_share(door):
    came = {d: batch(d, honest(20 if d == 0 else 4)) for d in range(4)}
    assert taken(door.admitted(1, came)) == {0: 8, 1: 4, 2: 4, 3: 4}
    assert door.metrics["dropped_beyond"] == 12
    often = [taken(door.admitted(r, {0: batch(0, honest(8))}))[0] for r in range(2, 5)]
    assert sum(often) <= 2 * (4 + 8)


def test_devices_that_come_later_take_nothing_from_those_that_are_there(door):
    for round in range(20):
        door.admitted(round, {d: batch(d, honest(8), round) for d in (0, 1)})
    for round in range(20, 24):
        found = door.admitted(round, {d: batch(d, honest(8), round) for d in range(6)})
        assert taken(found) == dict.fromkeys(range(6), 8)


def test_a_liar_is_not_listened_to_for_some_rounds_and_one_line_says_so(door, caplog):
    caplog.set_level("WARNING", "flwr")

    def answer(round: int, tokens: list[np.ndarray]) -> int:
        return taken(door.admitted(round, {0: batch(0, tokens), 1: batch(1, honest(4))}))[0]

    bad = [100 * t for t in honest(4)]
    assert answer(1, bad) == 0
    assert answer(2, bad) == 0
    assert [answer(3 + i, honest(4)) for i in range(REST)] == [0] * REST
    assert door.metrics["dropped_unheard"] == 4
    assert answer(3 + REST, honest(4)) == np.ceil(4 * (AFTERWARDS + 1) / 2)
    assert answer(4 + REST, bad) == 0
    said = [r.getMessage() for r in caplog.records if "unlike all" in r.getMessage()]
    assert len(said) == 1
    assert "device 0" in said[0]


def test_others_than_tokens_are_not_looked_at(door):
    came = {0: Answer("ok", "", None, Taken("weights")), 1: Answer("missing")}
    assert door.admitted(1, came) == came


def test_memory_is_in_checkpoints_and_bounded(door, tmp_path, monkeypatch):
    monkeypatch.setattr("strategies.doorkeeper.SEEN", 6)
    first = honest(4)
    door.admitted(1, {0: batch(0, [100 * t for t in first]), 1: batch(1, first), 2: batch(2, honest(4))})
    save(tmp_path, 1, {"doorkeeper": door.state()})
    other = Doorkeeper(2.0, lambda: NEAR)
    other.load(load_newest(tmp_path)[1]["doorkeeper"])
    assert other.state() == door.state()
    assert len(door._seen) == 6
    again = {d: batch(d, honest(1) + first[3:]) for d in range(3)}
    assert taken(other.admitted(2, again)) == taken(door.admitted(2, again)) == {0: 1, 1: 1, 2: 2}


@pytest.mark.slow
def test_a_run_with_it_drops_poison_and_nothing_of_honest_devices(run_settings, tmp_path, monkeypatch):
    monkeypatch.setattr("strategies.doorkeeper.FARTHER", (3.0, 3.0))  # A has 40 pictures of 4 tokens here
    monkeypatch.setattr("strategies.doorkeeper.PICTURES", (16, 1000))

    def rows(name: str, **more):
        own = {**run_settings(rounds=2, **more), "run.out-dir": str(tmp_path / name)}
        found = read(run_local(parse(own)))
        return found.devices.set_index(["round", "device"])["uploaded_samples"], found.metrics

    on, said = rows("on", cloud_doorkeeper="on")
    assert set(on) == {6}
    assert "dropped_strange" in set(said["name"])
    poison, _ = rows("poison", cloud_doorkeeper="on", poison_devices="1:huge")
    assert poison.xs(1, level="device").sum() == 0
    assert poison.xs(0, level="device").equals(on.xs(0, level="device"))


def test_what_is_known_of_a_is_coded_as_what_comes(run_settings, monkeypatch, caplog):
    caplog.set_level("WARNING", "flwr")
    monkeypatch.setattr("strategies.doorkeeper.PICTURES", (16, 1000))
    config = parse(run_settings(tokens_kept=2, token_bits=8))
    setup = prepare(config)
    found = known(config, setup.shared, setup.world)
    assert found.rows.shape[1] == setup.shared.width
    other = replace(config, uplink=replace(config.uplink, token_bits=3))
    assert not np.array_equal(known(other, setup.shared, setup.world).rows, found.rows)
    monkeypatch.setattr("strategies.doorkeeper.PICTURES", (64, 1000))
    assert known(config, setup.shared, setup.world) is None
    assert "A has 40 pictures; nothing is compared with them" in caplog.text
