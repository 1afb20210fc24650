"""Claims about reconstruction: each kind gives what it says, and an untrained reasoner is the line."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_flower.cloud.adr import RECONSTRUCT, Reasoner, anchor_frames, reconstruct, trust
from cdc_flower.uplink.anchors import positions


def _clips(seed=0, clips=2, frames=8, places=3, width=4):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(clips, frames, places, width))).float()


def _reasoner():
    torch.manual_seed(0)
    made = Reasoner(8, 3, 4, hidden=8)
    made.centre += 0.5
    made.spread *= 2
    return made.eval()


def _sent(clips, *at):
    at = torch.tensor([at] * len(clips))
    return clips[:, at[0]], at


def test_each_kind_gives_what_it_says():
    line = torch.arange(8.0)[None, :, None, None].expand(2, 8, 3, 4)
    sent, at = _sent(line, 1, 5)
    assert reconstruct("linear", sent, at, 8)[0, :, 0, 0].tolist() == [1, 1, 2, 3, 4, 5, 5, 5]
    assert reconstruct("hold", sent, at, 8)[0, :, 0, 0].tolist() == [1, 1, 1, 1, 5, 5, 5, 5]
    assert reconstruct("mean", sent, at, 8)[0, :, 0, 0].tolist() == [3] * 8
    assert reconstruct("none", sent, at, 8)[0, :, 0, 0].tolist() == [1, 5]


@pytest.mark.parametrize("at", [[0], [7], [2, 6], [0, 1, 5], list(range(8))])
@pytest.mark.parametrize("kind", ["hold", "linear", "learned"])
def test_anchors_stay_as_they_came_and_all_frames_are_the_clip(at, kind):
    clips = _clips()
    found = reconstruct(kind, *_sent(clips, *at), 8, _reasoner())
    torch.testing.assert_close(found[:, at], clips[:, at])
    assert found.shape == clips.shape


@settings(max_examples=20)
@given(st.sets(st.integers(0, 7), min_size=1))
def test_linear_is_what_numpy_interpolates(frames):
    clips, at = _clips(), sorted(frames)
    found = reconstruct("linear", *_sent(clips, *at), 8)
    flat = clips[0, at].reshape(len(at), -1).numpy()
    expected = np.stack([np.interp(np.arange(8), at, flat[:, d]) for d in range(flat.shape[1])], 1)
    np.testing.assert_allclose(found[0].reshape(8, -1), expected, atol=1e-5)


def test_clips_of_a_batch_have_anchors_of_their_own():
    clips = _clips()
    at = torch.tensor([[0, 3], [5, 6]])
    sent = torch.stack([clips[0, at[0]], clips[1, at[1]]])
    for kind in (*RECONSTRUCT, "learned"):
        both = reconstruct(kind, sent, at, 8, _reasoner())
        for i in range(2):
            torch.testing.assert_close(both[i], reconstruct(kind, sent[[i]], at[[i]], 8, _reasoner())[0])


def test_an_untrained_reasoner_is_the_line_and_says_a_variance_of_its_tokens():
    sent, at = _sent(_clips(), 2, 6)
    found, log_variance = _reasoner()(sent, at)
    torch.testing.assert_close(found, reconstruct("linear", sent, at, 8))
    torch.testing.assert_close(log_variance.exp(), torch.full_like(found, 4.0))


def test_a_frame_that_varies_as_all_clips_do_is_half_known():
    made, log_variance = _reasoner(), torch.zeros(1, 8, 3, 4)
    log_variance += 2 * made.spread.log()
    log_variance[0, 2] -= 40
    log_variance[0, 5] += np.log(3)
    expected = torch.tensor([[0.5, 0.5, 1, 0.5, 0.5, 0.25, 0.5, 0.5]])
    torch.testing.assert_close(trust(made, log_variance), expected)


def test_what_is_added_knows_time_and_place_and_all_anchors():
    made, clips = _reasoner(), _clips()
    torch.nn.init.normal_(made.end.weight)
    first, at = _sent(clips, 2, 6)
    moved = first.clone()
    moved[:, 1, 2] += 1  # one place of the later anchor
    change = (made(moved, at)[0] - made(first, at)[0]).abs().amax((0, 3))
    assert (change > 1e-4).all()  # reaches every frame and place
    assert (made(first, at)[0] - made(first, at + 1)[0]).abs().max() > 1e-2


@given(st.sets(st.integers(0, 9), min_size=1), st.integers(1, 5))
def test_frames_come_back_from_their_positions(frames, n):
    at = sorted(frames)
    assert anchor_frames(positions(at, n), n).tolist() == at


@pytest.mark.parametrize(
    "where", [[], [0, 1], [1, 2, 3], [0, 1, 2, 3, 4], [3, 4, 5, 0, 1, 2], [0, 1, 2, 0, 1, 2]]
)
def test_positions_that_are_no_whole_frames_are_refused(where):
    with pytest.raises(ValueError, match="not whole frames of 3 tokens"):
        anchor_frames(np.array(where, np.uint16), 3)


@pytest.mark.parametrize(
    ("kind", "at", "match"),
    [
        ("best", [[2, 6]], "'best'; allowed: hold, linear, mean, none, learned"),
        ("hold", [[2, 6, 7]], r"\(1, 3\); allowed: \(B, K, n, D\) and \(B, K\)"),
        ("hold", [[6, 2]], r"rising within 0\.\.7"),
        ("hold", [[2, 8]], r"rising within 0\.\.7"),
        ("learned", [[2, 6]], "none; allowed: one of 8 frames of 3 tokens"),
    ],
)
def test_what_is_wrong_is_named(kind, at, match):
    with pytest.raises(ValueError, match=match):
        reconstruct(kind, torch.zeros(1, 2, 3, 4), torch.tensor(at), 8)
