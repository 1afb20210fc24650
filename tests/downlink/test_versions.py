"""Claims about the mirror, one at a time; `test_state.py` plays any sequence of them."""

from dataclasses import dataclass

import numpy as np
import pytest

from cdc_flower.config import ConfigError
from cdc_flower.downlink import update
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.downlink.versions import Mirror
from cdc_flower.wire.frame import Kind, unpack
from tests import memory

CAP = 10**6


@dataclass(frozen=True)
class Layout:
    sizes: tuple[int, ...] = (300, 0, 100)
    digest: bytes = b"layout01"


LAYOUT = Layout()
P = sum(LAYOUT.sizes)
INITIAL = np.round(np.random.default_rng(0).standard_normal(P) * 2**20).astype(np.float32) / 2**20


def _mirror(codec="dyadic", budget=300, history=4):
    return Mirror(INITIAL, LAYOUT, codec, budget, history)


def _apply(frame, flat, version):
    return update.apply(frame, flat, version, LAYOUT.digest, LAYOUT.sizes, CAP)


def _walk(mirror, rounds, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        mirror.advance(mirror.adapter(mirror.newest) + rng.laplace(scale=0.01, size=P).astype(np.float32))


@pytest.mark.parametrize("codec", list(CODECS))
def test_every_version_in_the_window_reaches_the_newest_bit_for_bit(codec):
    mirror = _mirror(codec, history=5)
    devices = {0: mirror.adapter(0)}
    for _ in range(5):
        _walk(mirror, 1, seed=mirror.newest)
        devices[mirror.newest] = mirror.adapter(mirror.newest)
    for version, flat in devices.items():
        assert mirror.adapter(version).tobytes() == flat.tobytes()
        frame = mirror.frame_for(version)
        if version == 5:
            assert frame is None
            continue
        result, reached = _apply(frame, flat, version)
        assert reached == 5
        assert result.tobytes() == mirror.adapter(5).tobytes()


def test_what_is_not_sent_comes_later():
    mirror, target = _mirror(budget=200), np.random.default_rng(3).standard_normal(P).astype(np.float32)
    distance = []
    for _ in range(12):
        mirror.advance(target)
        distance.append(float(np.linalg.norm(target - mirror.adapter(mirror.newest))))
    assert distance[-1] < 0.01 * distance[0]


@pytest.mark.parametrize("codec", ["dyadic", "topk"])
def test_the_budget_is_that_of_the_whole_frame(codec):
    mirror = _mirror(codec, budget=200)
    _walk(mirror, 3)
    frame = mirror.frame_for(2)
    assert frame is not None
    assert 150 < len(frame) <= 200


def test_a_device_far_behind_or_unknown_gets_a_snapshot():
    mirror = _mirror("topk", history=3)
    _walk(mirror, 6)
    assert mirror.oldest == 3
    frames = [mirror.frame_for(v) for v in (0, 2, 7, 99)]
    assert frames == [mirror.frame_for(2)] * 4
    flat, version = _apply(frames[0], np.zeros(P, np.float32), 99)
    assert (version, flat.tobytes()) == (6, mirror.adapter(6).tobytes())
    with pytest.raises(KeyError, match=r"kept: 3\.\.6"):
        mirror.adapter(2)


def test_the_smaller_of_chain_and_snapshot_is_sent():
    mirror = _mirror("fp16", history=9)
    _walk(mirror, 5)
    sizes = [len(mirror.frame_for(v) or b"") for v in (4, 3, 2, 1, 0)]
    snapshot = len(mirror.frame_for(-1) or b"")
    assert sizes[0] < sizes[1] <= snapshot
    assert sizes[2:] == [snapshot] * 3


def _mode(frame):
    return unpack(frame, Kind.UPDATE, CAP)[0][0]


def test_a_device_that_lags_jumps_to_the_same_bits_for_fewer_bytes_than_the_chain():
    jumping = _mirror("dyadic", history=8)
    _walk(jumping, 12)
    for version in range(4, 10):
        frame = jumping.frame_for(version)
        assert _mode(frame) == update.JUMP
        assert _apply(frame, jumping.adapter(version), version)[0].tobytes() == jumping.adapter(12).tobytes()
    assert len(jumping.frame_for(4)) < 0.6 * len(jumping.frame_for(4, None, "none"))
    assert _mode(jumping.frame_for(11)) == update.CHAIN


def test_making_a_version_and_a_jump_takes_at_most_three_times_the_adapter():
    n = 10**6
    layout = Layout((n // 4,) * 4)
    mirror = Mirror(np.zeros(n, np.float32), layout, "dyadic", n // 10, 16)
    target = np.random.default_rng(0).laplace(scale=0.01, size=n).astype(np.float32)
    for _ in range(4):
        mirror.advance(target)
    for call in (lambda: mirror.advance(target), lambda: mirror.frame_for(1)):
        assert memory.peak(call, calls=1) <= 3 * target.nbytes
    assert _mode(mirror.frame_for(1)) == update.JUMP


def test_a_device_far_behind_jumps_from_version_0():
    mirror = _mirror("dyadic", history=3)
    _walk(mirror, 9)
    frame = mirror.frame_for(2)
    for said in [(99,), (8, b"otherone"), (99, None, "start")]:
        assert mirror.frame_for(*said) == frame
    assert update.stands_alone(frame, CAP)
    assert _apply(frame, INITIAL, 0)[0].tobytes() == mirror.adapter(9).tobytes()
    assert 2 * len(frame) < len(mirror.frame_for(2, None, "none"))


def test_who_may_be_further_along_gets_what_fits_there_and_who_could_not_use_a_jump_gets_none():
    mirror = _mirror("dyadic", budget=120, history=12)
    _walk(mirror, 12)
    every, start, none = (mirror.frame_for(6, None, jumps) for jumps in ("all", "start", "none"))
    assert _mode(every) == update.JUMP
    assert not update.stands_alone(every, CAP)
    assert update.stands_alone(start, CAP) or _mode(start) == update.CHAIN
    assert _mode(none) in (update.CHAIN, update.SNAPSHOT)
    assert len(every) < len(start) <= len(none)


def test_a_device_with_another_version_0_is_offered_no_jump_from_there():
    mirror = _mirror("dyadic", history=3)
    _walk(mirror, 6)
    assert _mode(mirror.frame_for(0, update.digest(INITIAL + 1))) == update.SNAPSHOT
    assert _mode(mirror.frame_for(0, update.digest(INITIAL))) == update.JUMP
    with pytest.raises(ValueError, match="another version 0"):
        Mirror(INITIAL + 1, LAYOUT, "dyadic", 300, 3).load(_mirror().state())


def test_there_is_no_jump_where_the_sum_is_not_exact():
    off_the_grid = Mirror(INITIAL + np.float32(1e-7), LAYOUT, "dyadic", 300, 3)
    _walk(off_the_grid, 6)
    assert _mode(off_the_grid.frame_for(0)) == update.SNAPSHOT
    assert _mode(off_the_grid.frame_for(4)) == update.CHAIN


def test_a_device_of_another_line_gets_a_snapshot():
    mirror = _mirror()
    _walk(mirror, 2)
    own = update.digest(mirror.adapter(2))
    assert mirror.frame_for(2, own) is None
    assert mirror.frame_for(2, b"otherone") == mirror.frame_for(99)


def test_one_encoding_for_each_lagging_version(monkeypatch):
    mirror = _mirror()
    _walk(mirror, 3)
    calls = []
    original = update.chain_frame
    monkeypatch.setattr(update, "chain_frame", lambda *a: calls.append(a[1]) or original(*a))
    for _ in range(50):
        for version in (0, 1, 2, 3):
            mirror.frame_for(version)
    assert sorted(calls) == [0, 1, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_target_that_is_not_finite_changes_nothing(bad):
    mirror = _mirror()
    _walk(mirror, 1)
    before = mirror.adapter(1)
    target = before.copy()
    target[5] = bad
    with pytest.raises(ValueError, match="1 elements that are NaN or infinite"):
        mirror.advance(target)
    with pytest.raises(ValueError, match="shape"):
        mirror.advance(target[:-1])
    assert mirror.newest == 1
    assert mirror.adapter(1).tobytes() == before.tobytes()


def test_a_target_too_far_away_changes_nothing():
    far = np.full(P, 3e38, np.float32)
    mirror = Mirror(far, LAYOUT, "fp16", 300, 4)
    with pytest.raises(ValueError, match=f"delta has {P} elements that are NaN or infinite"):
        mirror.advance(-far)
    assert mirror.newest == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"codec": "nope"}, "'downlink.codec' = 'nope'; allowed: dyadic, fp16, int8, topk"),
        ({"budget": 46}, "'downlink.budget' = 46: an update needs at least 47 bytes"),
        ({"history": 0}, "'downlink.history' = 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_run(change, says):
    with pytest.raises(ConfigError, match=says):
        _mirror(**change)


def test_a_restored_mirror_goes_on_as_if_nothing_had_happened():
    one = _mirror()
    _walk(one, 6)
    two = _mirror()
    two.load(one.state())
    for version in (2, 3, 5, 6):
        assert one.frame_for(version) == two.frame_for(version)
    _walk(one, 3, seed=9)
    _walk(two, 3, seed=9)
    assert one.frame_for(7) == two.frame_for(7)
    assert one.adapter(6).tobytes() == two.adapter(6).tobytes()


@pytest.mark.parametrize("kind", ["laplace", "standard_normal"])
def test_the_energy_that_an_update_carries_and_the_bytes_that_half_of_it_takes(kind):
    n = 50_000
    target = (getattr(np.random.default_rng(0), kind)(size=n) * 0.01).astype(np.float32)
    budget, found = 600, []
    for _ in range(2):
        mirror = Mirror(np.zeros(n, np.float32), Layout((n,)), "dyadic", budget, 4)
        mirror.advance(target)
        left = target.astype(np.float64) - mirror.adapter(1)
        assert mirror.sent_energy == pytest.approx(1 - (left**2).sum() / (target.astype(float) ** 2).sum())
        found.append(mirror.sent_energy)
        budget = mirror.half_energy_bytes
    assert found[0] < 0.2
    assert 0.4 < found[1] < 0.6


def test_nothing_to_send_has_all_of_its_energy():
    mirror = _mirror()
    mirror.advance(mirror.adapter(0))
    assert (mirror.sent_energy, mirror.half_energy_bytes) == (1.0, 0)


def test_a_state_is_arrays_bytes_and_ints():
    mirror = _mirror()
    _walk(mirror, 2)
    assert {type(v) for v in mirror.state().values()} == {int, bytes, np.ndarray}


def test_a_damaged_state_is_refused():
    mirror = _mirror()
    _walk(mirror, 2)
    state = mirror.state()
    with pytest.raises(ValueError, match="saved adapters have layout"):
        Mirror(INITIAL, Layout(digest=b"layout02"), "dyadic", 300, 4).load(state)
    state["newest"][0] += 1
    with pytest.raises(ValueError, match="damaged checkpoint"):
        _mirror().load(state)


def test_a_mirror_that_loads_a_state_forgets_its_own_line_and_a_refused_state_changes_nothing():
    one, two = _mirror(), _mirror()
    _walk(one, 3)
    _walk(two, 3, seed=2)
    frame = two.frame_for(0)
    state = one.state()
    with pytest.raises(ValueError, match="damaged checkpoint"):
        two.load({**state, "newest": state["newest"] + 1})
    assert two.frame_for(0) == frame
    two.load(state)
    assert (two.newest, two.digest, two.frame_for(0)) == (one.newest, one.digest, one.frame_for(0))
    np.testing.assert_equal(two.state(), state)


@pytest.mark.parametrize("codec", list(CODECS))
def test_no_frame_is_longer_than_a_device_reads_and_no_chain_than_the_history(codec):
    rng = np.random.default_rng(0)
    mirror = _mirror(codec, budget=10**6, history=3)
    for _ in range(6):
        mirror.advance(rng.standard_normal(len(INITIAL)).astype(np.float32))
    for version in range(mirror.newest):
        for jumps in ("all", "start", "none"):
            frame = mirror.frame_for(version, jumps=jumps)
            assert len(frame) <= update.longest(len(INITIAL))
            assert len(unpack(frame, Kind.UPDATE, 10**6)) <= 1 + 3


def test_a_mirror_that_is_loaded_with_a_shorter_history_sends_no_longer_chains():
    long, short = _mirror("dyadic", history=6), _mirror("dyadic", history=2)
    for step in range(1, 6):
        long.advance(INITIAL + np.float32(step) / 8)
    short.load(long.state())
    assert (short.oldest, short.newest) == (3, 5)
    np.testing.assert_array_equal(short.adapter(3), long.adapter(3))
    np.testing.assert_array_equal(short.adapter(5), long.adapter(5))
