"""Claims about anchor frames: rising, different, deterministic, and each rule picks what it says it picks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.uplink import anchors
from cdc_flower.uplink.anchors import ANCHORS, choose, positions
from cdc_flower.uplink.sample import Batch, Sample
from cdc_flower.uplink.token_batch import decode, encode


def _rng():
    return np.random.default_rng(0)


def _clip(*values):
    """Frames of two tokens of three equal values."""
    return np.repeat(np.array(values, np.float16), 6).reshape(len(values), 2, 3)


@given(st.sampled_from(sorted(ANCHORS)), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_every_rule_gives_k_different_rising_frames(kind, frames, k, still):
    tokens = np.zeros((frames, 2, 3)) if still else _rng().normal(size=(frames, 2, 3)).astype(np.float16)
    found = choose(kind, tokens, k, _rng())
    assert found.tolist() == sorted(set(found.tolist()))
    assert len(found) == min(k, frames)
    assert 0 <= found[0] <= found[-1] < frames
    assert found.tolist() == choose(kind, tokens, k, _rng()).tolist()


@pytest.mark.parametrize(("k", "frames"), [(1, [4]), (2, [2, 6]), (3, [1, 4, 6]), (4, [1, 3, 5, 7])])
def test_uniform_frames_are_the_middles_of_equal_parts(k, frames):
    assert choose("uniform", np.zeros((8, 1, 1)), k, _rng()).tolist() == frames


def test_motion_takes_the_frames_behind_the_largest_changes():
    assert choose("motion", _clip(0, 0, 5, 5, 5, 8, 8), 2, _rng()).tolist() == [2, 5]
    assert choose("motion", _clip(0, 9, 9, 9), 2, _rng()).tolist() == [0, 1]  # before and after it
    assert choose("motion", np.full((3, 2, 3), 60000, np.float16), 1, _rng()).tolist() == [0]


def test_farthest_takes_the_middle_and_then_what_is_unlike_all_before():
    assert choose("farthest", _clip(0, 1, 1, 1, 9, -7), 1, _rng()).tolist() == [1]
    assert choose("farthest", _clip(0, 1, 1, 1, 9, -6), 3, _rng()).tolist() == [1, 4, 5]


def test_random_frames_follow_the_generator():
    drawn = {tuple(choose("random", np.zeros((8, 1, 1)), 2, np.random.default_rng(i))) for i in range(20)}
    assert len(drawn) > 5


def test_a_rule_says_what_it_costs():
    cost = {name: rule.flop(8, 16, 64, 2) for name, rule in ANCHORS.items()}
    assert cost == {"uniform": 0, "motion": 3 * 7 * 1024, "farthest": 9 * 8192, "random": 0}
    assert {name for name, rule in ANCHORS.items() if rule.reads} == {"motion", "farthest"}


def test_anchor_frames_are_kept_tokens_of_a_frame_on_the_wire():
    tokens = _rng().normal(size=(8, 4, 3)).astype(np.float32)
    at = choose("uniform", tokens, 2, _rng())
    where = positions(at, 4)
    assert where.tolist() == [8, 9, 10, 11, 24, 25, 26, 27]
    sample = Sample(0, (32, 16, 2), where, [1], [], 0.0, tokens=tokens.reshape(-1, 3)[where])
    frame = encode(Batch(0, 1, 0, (sample,)), 3, 16)
    (got,) = decode(frame, lambda grid: grid == (32, 16, 2), 3, 9, len(frame)).samples
    assert (got.positions // 4).tolist() == [2] * 4 + [6] * 4
    np.testing.assert_allclose(got.tokens.reshape(2, 4, 3), tokens[at], rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: choose("best", np.zeros((2, 1, 1)), 1, _rng()), "'best'; allowed: uniform, motion"),
        (lambda: choose("motion", np.zeros((2, 1)), 1, _rng()), r"\(2, 1\); allowed: \(F, n, D\)"),
        (lambda: choose("motion", np.zeros((0, 1, 1)), 1, _rng()), "at least one frame"),
        (lambda: choose("motion", np.zeros((2, 1, 1)), 0, _rng()), "0 anchor frames; allowed: at least 1"),
        (lambda: anchors.positions([3, 1], 4), "rising"),
        (lambda: anchors.positions([0, 1 << 14], 4), "up to 65535"),
    ],
)
def test_what_is_wrong_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
