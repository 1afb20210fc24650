"""Who holds which adapter, from what devices said last."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.cloud.guard import Found
from cdc_flower.downlink import update
from cdc_flower.downlink.versions import Mirror
from cdc_flower.models.adapters import Layout
from strategies.lineage import Lineage

LAYOUT = Layout(("a", "b"), ((4, 4), (3,)))


@pytest.fixture
def lineage() -> Lineage:
    """Three versions after the first."""
    made = Lineage(Mirror(np.zeros(LAYOUT.total, np.float32), LAYOUT, "fp16", 10_000, 4))
    for step in (1, 2, 3):
        made.advance(np.full(LAYOUT.total, step, np.float32))
    return made


def brought(lineage, device, version):
    """The adapter of a device of `version` after what the lineage sends it."""
    frame = lineage.frame_for(device)
    if frame is None:
        return lineage.mirror.adapter(version), version
    start = lineage.mirror.adapter(0 if update.stands_alone(frame, 2**20) else version)
    return update.apply(frame, start, version, LAYOUT.digest, LAYOUT.sizes, 2**20)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_a_device_of_any_version_is_brought_to_the_newest(lineage, version):
    lineage.heard(5, version, update.digest(lineage.mirror.adapter(version)))
    flat, reached = brought(lineage, 5, version)
    assert reached == 3
    np.testing.assert_array_equal(flat, lineage.newest())


def test_a_device_that_never_answered_has_the_adapter_it_was_shipped_with(lineage):
    flat, reached = brought(lineage, 0, 0)
    assert reached == 3
    np.testing.assert_array_equal(flat, lineage.newest())


def test_a_device_with_the_newest_adapter_gets_nothing(lineage):
    lineage.heard(1, 3, lineage.mirror.digest)
    assert not lineage.is_stale(1)
    assert lineage.frame_for(1) is None


def test_a_version_number_with_another_adapter_is_stale_and_gets_what_fits_any_device(lineage):
    lineage.heard(1, 3, b"another!")
    assert lineage.is_stale(1)
    assert update.stands_alone(lineage.frame_for(1), 2**20)


def test_a_device_that_did_not_come_to_what_it_was_sent_is_refused_until_it_does(lineage):
    lineage.heard(1, 0, update.digest(lineage.mirror.adapter(0)))
    lineage.frame_for(1)
    lineage.heard(1, 0, update.digest(lineage.mirror.adapter(0)))  # still where it was
    assert lineage.refused == {1}
    lineage.frame_for(1)
    lineage.heard(1, 3, lineage.mirror.digest)
    assert lineage.refused == set()


def test_it_goes_on_from_its_state_as_it_was(lineage):
    lineage.heard(1, 2, update.digest(lineage.mirror.adapter(2)))
    lineage.frame_for(1)
    lineage.frame_for(4)
    lineage.refused.add(9)
    again = Lineage(lineage.mirror)
    again.load(lineage.state())
    assert (again.known, again.ordered, again.refused) == (lineage.known, lineage.ordered, lineage.refused)


def test_lost_adapters_of_the_window_come_back_and_older_ones_are_not_needed(lineage):
    for step in (4, 5, 6):
        lineage.advance(np.full(LAYOUT.total, step, np.float32))
    assert lineage.mirror.oldest == 2
    old = update.digest(np.full(LAYOUT.total, 1, np.float32))
    held = {
        0: lineage.mirror.digest,
        1: update.digest(lineage.mirror.adapter(3)),
        2: old,
        3: lineage.mirror.digest,
    }
    found = lineage.restored(held)
    assert set(found) == {held[0], held[1]}
    assert all(update.digest(flat) == digest for digest, flat in found.items())
    lineage.heard(2, 1, old)
    frame = lineage.frame_for(2)
    assert frame is not None
    assert update.stands_alone(frame, 2**20)


@pytest.mark.parametrize(("far", "share"), [(1.0, 1.0), (0.6, 0.5), (0.0, 0.0)])
def test_a_guard_decides_how_far_the_next_version_goes(lineage, far, share):
    """The guard of this test lets go by the way, the one of `cdc_flower.cloud` by what answers are worth."""

    class Upto:
        def furthest(self, last, target, made):
            found = [
                (made(last + s * (target - last)), s) for s in (np.float32(1), np.float32(0.5)) if s <= far
            ]
            return Found(*found[0]) if found else Found(None, 0.0)

    assert lineage.advance(np.full(LAYOUT.total, 4, np.float32), Upto()) == share
    assert lineage.mirror.newest == 3 + (share > 0)
    np.testing.assert_allclose(lineage.newest(), 3 + share, atol=1e-3)
    lineage.heard(5, 3, update.digest(np.full(LAYOUT.total, 3, np.float32)))
    flat, reached = brought(lineage, 5, 3)
    assert reached == lineage.mirror.newest
    np.testing.assert_array_equal(flat, lineage.newest())
