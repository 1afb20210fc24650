"""Each loss against a plain reference, and what must be zero is zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cdc_flower.cloud import losses
from cdc_flower.config import ConfigError, parse

B, A, V, S, H = 3, 4, 7, 20, 5


@pytest.fixture
def case():
    """Logits, answers of unequal length, teacher logits and weights, all float64."""
    g = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(B, A, V, generator=g, dtype=torch.float64) * 2 for _ in range(2))
    answer = torch.randint(0, V, (B, A), generator=g)
    for i, length in enumerate((4, 2, 1)):
        answer[i, length:] = -100
    return logits, teacher, answer, torch.tensor([0.9, 0.5, 1.0], dtype=torch.float64)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def every(teacher):
    """All V logits of the teacher, as `top_ids` and `top_logits`."""
    top = teacher.topk(V, -1)
    return top.indices, top.values


def test_cross_entropy_is_the_weighted_mean_over_samples_of_the_mean_over_steps(case):
    logits, _, answer, weight = case
    total = 0.0
    for i in range(B):
        steps = [-np.log(softmax(logits[i, t].numpy())[int(a)]) for t, a in enumerate(answer[i]) if a != -100]
        total += float(weight[i]) * np.mean(steps)
    assert losses.weighted_ce(logits, answer, weight).item() == pytest.approx(total / B, rel=1e-12)


def test_what_stands_beyond_an_answers_end_changes_no_loss(case):
    logits, teacher, answer, weight = case
    mask = answer != -100
    other = torch.where(mask[..., None], logits, torch.randn(B, A, V, dtype=torch.float64) * 100)
    assert losses.weighted_ce(other, answer, weight) == losses.weighted_ce(logits, answer, weight)
    top = every(teacher)
    assert losses.top_kl(other, *top, mask, weight, 1.0) == losses.top_kl(logits, *top, mask, weight, 1.0)


def test_a_long_answer_weighs_as_much_as_a_short_one():
    logits = torch.zeros(1, 6, V)
    short, long = torch.full((1, 6), -100), torch.zeros(1, 6, dtype=torch.int64)
    short[0, 0] = 0
    one = torch.ones(1)
    torch.testing.assert_close(losses.weighted_ce(logits, short, one), losses.weighted_ce(logits, long, one))


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_top_kl_over_the_whole_vocabulary_is_the_full_kl(case, tau):
    logits, teacher, answer, weight = case
    total = 0.0
    for i in range(B):
        steps = []
        for t in range(int((answer[i] != -100).sum())):
            p, q = softmax(teacher[i, t].numpy() / tau), softmax(logits[i, t].numpy() / tau)
            steps.append((p * np.log(p / q)).sum())
        total += float(weight[i]) * np.mean(steps)
    found = losses.top_kl(logits, *every(teacher), answer != -100, weight, tau)
    assert found.item() == pytest.approx(tau**2 * total / B, rel=1e-10)


def test_top_kl_renormalises_the_teacher_and_not_the_student(case):
    logits, teacher, answer, weight = case
    k, total = 3, 0.0
    top = teacher.topk(k, -1)
    for i in range(B):
        steps = []
        for t in range(int((answer[i] != -100).sum())):
            chosen = top.indices[i, t].numpy()
            p, q = softmax(teacher[i, t].numpy()[chosen]), softmax(logits[i, t].numpy())[chosen]
            steps.append((p * np.log(p / q)).sum())
        total += float(weight[i]) * np.mean(steps)
    found = losses.top_kl(logits, top.indices, top.values, answer != -100, weight, 1.0)
    assert found.item() == pytest.approx(total / B, rel=1e-10)


def test_kl_is_zero_when_the_student_agrees_and_positive_otherwise(case):
    logits, teacher, answer, weight = case
    mask = answer != -100
    same = losses.top_kl(teacher + 3.0, *every(teacher), mask, weight, 2.0)  # logits know no offset
    assert abs(same.item()) < 1e-12
    assert losses.top_kl(logits, *every(teacher), mask, weight, 2.0).item() > 0.01


@pytest.mark.parametrize("name", ["feature", "wavelet"])
def test_the_losses_of_states_are_zero_for_equal_ones_and_blind_to_absent_positions(name):
    g = torch.Generator().manual_seed(1)
    states = torch.randn(2, S, H, generator=g, dtype=torch.float64)
    mask = torch.rand(2, S, generator=g) < 0.7

    def loss(student):
        seen = losses.Seen(*[states] * 5, tau=1.0, mask=mask, hidden=student, teacher_hidden=states)
        return losses.LOSSES[name].function(seen).item()

    assert loss(states) == 0
    noise = torch.where(mask[..., None], 0.0, torch.randn(2, S, H, generator=g, dtype=torch.float64) * 50)
    assert loss(states + noise) == 0
    assert loss(states + 0.1) > 0.009


def test_the_feature_loss_is_the_mean_square_over_present_positions():
    g = torch.Generator().manual_seed(2)
    a, b = (torch.randn(2, S, H, generator=g, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(2, S, generator=g) < 0.5
    expected = np.mean((a.numpy() - b.numpy())[mask.numpy()] ** 2)
    assert losses.feature(a, b, mask).item() == pytest.approx(expected, rel=1e-12)


def test_the_filter_is_an_orthonormal_one_with_six_vanishing_moments():
    """The conditions that define a Daubechies filter of twelve taps (Daubechies 1992, chapter 6)."""
    low = np.array(losses.DB6)
    high = low * np.where(np.arange(12) % 2, -1.0, 1.0)
    assert low.sum() == pytest.approx(np.sqrt(2), abs=1e-9)
    for shift in range(0, 12, 2):
        assert np.dot(low[shift:], low[: 12 - shift]) == pytest.approx(float(shift == 0), abs=1e-9)
    centred = np.arange(12) - 5.5
    for moment in range(6):
        assert np.dot(high, centred**moment) == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Level value of 3 is too high")  # short sequences: all is border
@pytest.mark.parametrize("length", [12, 20, 33, 64])
def test_the_wavelet_term_is_that_of_pywt_with_zeros_beyond_the_ends(length):
    pywt = pytest.importorskip("pywt")
    rng = np.random.default_rng(length)
    a, b = rng.normal(size=(2, 3, length, H))
    bands = pywt.wavedec(a - b, "db6", mode="zero", level=3, axis=1)[1:]
    expected = sum(np.abs(band).mean() for band in bands)
    found = losses.wavelet_l1(torch.from_numpy(a), torch.from_numpy(b))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_the_wavelet_term_is_that_of_a_plain_convolution():
    """One level by hand: convolve, keep every second value, mean absolute value."""
    x = np.random.default_rng(3).normal(size=S)
    high = np.array(losses.DB6)[::-1] * np.where(np.arange(12) % 2, 1.0, -1.0)
    expected = np.abs(np.convolve(x, high)[1::2]).mean()
    x = torch.from_numpy(x)[None, :, None]
    assert losses.wavelet_l1(x, torch.zeros_like(x), levels=1).item() == pytest.approx(expected, rel=1e-12)


def test_gradients_are_those_of_finite_differences(case):
    logits, teacher, answer, weight = case
    logits = logits.clone().requires_grad_()
    mask, top = answer != -100, teacher.topk(4, -1)
    assert torch.autograd.gradcheck(lambda x: losses.weighted_ce(x, answer, weight), logits)
    assert torch.autograd.gradcheck(
        lambda x: losses.top_kl(x, top.indices, top.values, mask, weight, 2.0), logits
    )
    g = torch.Generator().manual_seed(4)
    a, b = (torch.randn(1, 14, 2, generator=g, dtype=torch.float64) for _ in range(2))
    seen = torch.arange(14)[None] != 5
    assert torch.autograd.gradcheck(
        lambda x: losses.feature(x, b, seen) + losses.wavelet_l1(x, b), a.requires_grad_()
    )


def test_losses_are_named_with_weights_or_without():
    assert losses.weights("ce,kl") == {"ce": 1.0, "kl": 1.0}
    assert losses.weights(" ce=1, feature = 0.1 ") == {"ce": 1.0, "feature": 0.1}
    assert losses.weights(parse({}).cloud.losses) == {"ce": 1.0, "kl": 1.0}
    assert [losses.needs_teacher(s) for s in ("ce,kl", "ce,wavelet=0.1")] == [False, True]


@pytest.mark.parametrize("setting", ["ce,kll", "ce,ce", "ce=x", "ce=-1", "ce=0", "ce=nan", "ce=inf", ""])
def test_losses_that_cannot_be_are_refused_in_one_line(setting):
    with pytest.raises(ConfigError, match=r"^setting 'cloud.losses' = [^\n]*allowed: [^\n]*$"):
        losses.weights(setting)


def test_terms_that_a_teacher_does_not_allow_are_left_out_or_refused():
    assert losses.possible("ce,kl=0.5,feature", words=True, alike=True) == (
        {"ce": 1.0, "kl": 0.5, "feature": 1.0},
        "",
    )
    assert losses.possible("ce,kl", words=True, alike=False) == ({"ce": 1.0, "kl": 1.0}, "")
    left, said = losses.possible("ce=2,kl", words=False, alike=False)
    assert left == {"ce": 2.0}
    assert said.endswith("by ce without kl")
    for setting, words, says in (
        ("kl", False, "'kl' .* ids"),
        ("ce,wavelet", True, "'wavelet' .* tokens or ids"),
    ):
        with pytest.raises(ConfigError, match=f"{says}.*allowed: ce{', kl' if words else ''}, entropy$"):
            losses.possible(setting, words=words, alike=False)


def test_the_students_own_entropy_counts_more_where_it_is_sure():
    v = 8
    flat, sure = torch.zeros(1, 2, v), torch.zeros(1, 2, v)
    sure[..., 0] = 5.0
    mask = torch.tensor([[True, True]])
    for logits in (flat, sure):
        p = logits[0, 0].softmax(-1)
        h = float(-(p * p.log()).sum())
        expected = math.exp(0.4 * math.log(v) - h) * h
        assert float(losses.sure_entropy(logits, mask)) == pytest.approx(expected, rel=1e-5)
    half = torch.cat([flat[:, :1], sure[:, :1]], 1)
    one = losses.sure_entropy(half, torch.tensor([[True, False]]))
    assert float(one) == pytest.approx(float(losses.sure_entropy(flat, mask)))
    sure.requires_grad_()
    losses.sure_entropy(sure, mask).backward()
    assert float(sure.grad[0, 0, 0]) < 0  # a step downhill makes it surer
