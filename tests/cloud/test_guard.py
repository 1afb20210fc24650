"""What is shipped is not worse on held-out source samples than what was; how far a version goes is found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from cdc_flower.cloud.guard import BISECTIONS, ITEMS, Guard
from cdc_flower.cloud.lessons import teach
from cdc_flower.cloud.source import SourceItem
from cdc_flower.config import parse
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from cdc_flower.models.teacher import Teacher
from cdc_flower.tasks import Truth
from cdc_flower.tasks.exact import exact


class Made(NamedTuple):
    flat: np.ndarray


@pytest.fixture
def student(shared, config):
    return twin_model(shared, config.pair)


@pytest.fixture
def items(shared, student, samples):
    """Samples of which the student as shipped is right about all but one."""
    said = teach(shared, Teacher(student, ""), samples)[1]
    said[0] = "something else"
    return [SourceItem(s, Truth(t, (t,)), "source") for s, t in zip(samples, said, strict=True)]


def guarded(shared, student, items, curve, tolerance=0.02, first=0.5):
    """A guard to whom an adapter is worth what `curve` says of its first weight."""

    class Known(Guard):
        def measure(self, flat):
            asked.append(float(flat[0]))
            return first if len(asked) == 1 else curve(flat[0])

    asked = []
    return Known(shared, student, items, exact, tolerance), asked


def test_worth_is_that_of_the_answers_and_the_model_keeps_its_own_adapter(shared, student, items):
    own = adapters.read(student)
    guard = Guard(shared, student, items, exact, 0.02)
    assert guard.first == guard.last == pytest.approx((len(items) - 1) / len(items))
    noise = np.random.default_rng(0).normal(0, 1, own.shape).astype(np.float32)
    assert guard.measure(own + noise) < guard.first
    assert adapters.read(student).tobytes() == own.tobytes()
    assert guard.measure(own) == guard.first


def test_a_harmless_version_is_shipped_whole_and_a_harmful_one_is_not(shared, student, items):
    own = adapters.read(student)
    guard = Guard(shared, student, items, exact, 0.0)
    found = guard.furthest(own, own + np.float32(1e-7), Made)
    assert found.share == 1
    noise = np.random.default_rng(0).normal(0, 3, own.shape).astype(np.float32)
    found = guard.furthest(own, own + noise, Made)
    assert found.share < 1
    assert guard.measure(own if found.version is None else found.version.flat) >= guard.first
    loose = Guard(shared, student, items, exact, 1.0)
    assert loose.furthest(own, own + noise, Made).share == 1


@pytest.mark.parametrize(("edge", "share"), [(1.0, 1.0), (0.9, 0.875), (0.6, 0.5), (0.2, 0.125), (0.1, 0.0)])
def test_the_furthest_point_before_the_edge_is_found_in_a_few_steps(shared, student, items, edge, share):
    guard, asked = guarded(shared, student, items, lambda x: 0.5 if x <= edge else 0.4)
    found = guard.furthest(np.zeros(3, np.float32), np.ones(3, np.float32), Made)
    assert found.share == share
    assert (None if found.version is None else found.version.flat[0]) == (share or None)
    assert len(asked) - 1 == (1 if share == 1 else 1 + BISECTIONS)
    assert guard.most == (1 + BISECTIONS) * len(items)
    assert guard.metrics(share) == {"guard_accuracy": 0.5, "guard_held": share < 1, "guard_share": share}


def test_neither_the_version_before_nor_the_first_is_undercut(shared, student, items):
    guard, _ = guarded(shared, student, items, float, tolerance=0.02)
    at = np.float32([0.5])

    def ship(worth):
        return guard.furthest(at, np.float32([worth]), Made).share

    assert ship(0.6) == 1
    assert guard.last == pytest.approx(0.6)
    assert ship(0.575) < 1  # worse than the one before
    assert ship(0.585) == 1
    assert ship(0.57) == 1
    assert ship(0.555) == 1
    assert ship(0.54) == 1
    assert ship(0.525) == 1
    assert ship(0.51) == 1
    assert ship(0.495) == 1
    assert ship(0.479) < 1  # by little each time, and together worse than the first
    assert guard.first == 0.5


def test_versions_are_measured_as_devices_would_hold_them(shared, student, items):
    guard, asked = guarded(shared, student, items, lambda x: 0.5 if x <= 1 else 0.4)
    coarse = guard.furthest(
        np.zeros(1, np.float32), np.ones(1, np.float32), lambda t: Made(np.ceil(t * 2) * 2)
    )
    assert asked[1:] == [4, 2, 2, 2]
    assert coarse.version is None


def test_a_guard_that_comes_back_asks_for_as_much(shared, student, items):
    one, _ = guarded(shared, student, items, float)
    one.furthest(np.zeros(1, np.float32), np.float32([0.7]), Made)
    two, _ = guarded(shared, student, items, float)
    two.load(one.state())
    assert two.last == one.last == pytest.approx(0.7)
    assert two.furthest(np.zeros(1, np.float32), np.float32([0.6]), Made).share < 1


def test_no_guard_where_it_is_off_or_nothing_is_held_out(shared, settings, student, items, caplog):
    def made(share, some):
        return Guard.of(parse({**settings, "cloud.guard": share}), shared, student, some, exact)

    assert made(0.0, items) is None
    assert not caplog.text
    assert made(0.1, []) is None
    assert "no source samples are held out" in caplog.text
    guard = made(0.1, [*items] * 50)
    assert (guard.tolerance, len(guard.samples)) == (0.1, ITEMS)
