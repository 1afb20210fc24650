"""Claims about the training of a reasoner: it learns what no line knows, and covers what it says."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from cdc_flower.cloud import adr_training
from cdc_flower.cloud.adr import Reasoner, reconstruct
from cdc_flower.cloud.adr_training import Lesson, coverage, digest, likelihood, train
from cdc_flower.cloud.trained import kept
from cdc_flower.uplink.anchors import choose
from cdc_flower.uplink.token_batch import quantized

PICK = partial(choose, "uniform")
SEND = partial(quantized, bits=8)
SHORT = Lesson(anchors=(1, 2), steps=60, lr=1e-2, tokens=384)
FEW = Lesson(anchors=(2,), steps=3, tokens=96)


def _waves(clips, seed=0):
    """(clips, 6, 2, 3): sines, of which the first channel tells the phase; no line follows them."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (clips, 1, 2)) + 1.2 * np.arange(6)[None, :, None]
    return np.stack([np.sin(phase), np.cos(phase), np.sin(phase) ** 2], -1).astype(np.float16)


def _asked(clips, k):
    at = torch.from_numpy(np.stack([PICK(c, k, np.random.default_rng(0)) for c in clips]))
    whole = torch.from_numpy(clips).float()
    return whole[torch.arange(len(clips))[:, None], at], at, whole


@pytest.fixture(scope="module")
def made():
    return train(_waves(200), PICK, SEND, SHORT)


def test_it_learns_what_no_line_knows(made):
    sent, at, whole = _asked(_waves(50, seed=1), 2)
    off = {
        kind: float((reconstruct(kind, sent, at, 6, made) - whole).norm()) for kind in ("linear", "learned")
    }
    assert off["learned"] < 0.6 * off["linear"]


def test_deviations_cover_what_they_say(made):
    found = coverage(made, _asked(_waves(200, seed=1), 2))
    assert found[0.5] < found[0.9] < found[0.99]
    assert abs(found[0.9] - 0.9) < 0.06


def test_what_it_does_not_know_has_the_larger_deviation(made):
    sent, at, _ = _asked(_waves(50, seed=1), 1)
    log_variance = made(sent, at)[1].mean((0, 2, 3))
    assert log_variance[3] < log_variance[0] - 1  # the frame that came, and one that did not


def test_it_is_the_same_again_and_begins_as_the_line():
    clips = _waves(20)
    one, two = (train(clips, PICK, SEND, FEW) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    sent, at, _ = _asked(clips, 2)
    line = train(clips, PICK, SEND, replace(FEW, steps=0))
    torch.testing.assert_close(line(sent, at)[0], reconstruct("linear", sent, at, 6))


def test_a_training_that_harms_leaves_the_line():
    clips = _waves(40)
    wild = train(clips, PICK, SEND, replace(FEW, steps=2, lr=10.0))
    sent, at, _ = _asked(clips, 2)
    torch.testing.assert_close(wild(sent, at)[0], reconstruct("linear", sent, at, 6))


def test_the_likelihood_is_least_at_the_true_variance():
    off, guesses = torch.tensor([-2.0, 2.0]), torch.linspace(-3, 5, 81)
    each = [float(likelihood(off, g.expand(2)) * (-adr_training.BETA * g).exp()) for g in guesses]
    assert float(guesses[int(np.argmin(each))].exp()) == pytest.approx(4, rel=0.1)


def test_a_kept_one_is_read_and_a_damaged_file_made_again(made, tmp_path):
    path = tmp_path / "adr" / "x.safetensors"
    calls = []

    def make():
        calls.append(1)
        return made

    for _ in range(2):
        found = kept(path, Reasoner(6, 2, 3), make)
        asked = _asked(_waves(3), 2)
        assert torch.equal(found(*asked[:2])[0], made(*asked[:2])[0])
    assert len(calls) == 1
    path.write_bytes(path.read_bytes()[:-9])
    kept(path, Reasoner(6, 2, 3), make)
    kept(path, Reasoner(6, 2, 4), lambda: calls.append(1) or made)  # of another pair
    assert len(calls) == 3


def test_the_digest_knows_clips_and_settings():
    clips = _waves(3)
    other = clips.copy()
    other[0, 0, 0, 0] += 1
    names = {digest(clips, ("a", Lesson())), digest(other, ("a", Lesson())), digest(clips, ("b", Lesson()))}
    assert len(names) == 3
    assert digest(clips, ("a", Lesson())) in names


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="9 clips for the reasoner; allowed: at least 10"):
        train(_waves(9), PICK, SEND, SHORT)
