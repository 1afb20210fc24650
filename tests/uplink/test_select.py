"""Claims about selection: deterministic, ties by position, and the budget holds in real bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.uplink import select
from cdc_flower.uplink.sample import Batch, Sample
from cdc_flower.uplink.token_batch import encode

SCORE = st.floats(allow_nan=True, width=32) | st.sampled_from([0.0, -0.0, 1.0])


@given(st.lists(SCORE, max_size=20), st.integers(0, 25))
def test_top_is_the_plain_sort(scores, keep):
    sign = -1

    def rank(i):
        return (1, 0.0, i) if np.isnan(scores[i]) else (0, sign * scores[i], i)

    order = sorted(range(len(scores)), key=rank)
    (found,) = select.top(np.array([scores], np.float32).reshape(1, -1), keep)
    assert found.tolist() == sorted(order[:keep])


def test_ties_go_to_the_lower_position():
    assert select.top(np.ones((2, 9)), 3)[1].tolist() == [0, 1, 2]


def test_nan_is_kept_only_when_nothing_else_is_left():
    scores = np.array([[np.nan, 1.0, np.nan, 2.0]])
    assert select.top(scores, 2)[0].tolist() == [1, 3]
    assert select.top(scores, 3)[0].tolist() == [0, 1, 3]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"must be \(B, N\)"):
        select.top(np.zeros(4), 1)
    with pytest.raises(ValueError, match="keep = -1"):
        select.top(np.zeros((1, 4)), -1)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 500))
def test_within_budget_is_the_longest_prefix_that_fits(sizes, budget):
    order = list(range(len(sizes)))
    chosen = select.within_budget(order, lambda some: sum(sizes[i] for i in some), budget)
    totals = np.cumsum(sizes)
    assert chosen == order[: int((totals <= budget).sum())]


def test_a_budget_of_0_is_no_limit():
    assert select.within_budget(range(9), len, 0) == list(range(9))


def test_within_budget_asks_for_few_encodings():
    calls = []
    select.within_budget(range(1000), lambda some: calls.append(1) or len(some), 333)
    assert len(calls) <= 11
    calls.clear()
    select.within_budget(range(1000), lambda some: calls.append(1) or len(some), 1000)
    assert len(calls) == 1


def _batch(rng, n, kept, n_tokens, width, text):
    samples = []
    for i in range(n):
        where = np.sort(rng.choice(n_tokens, kept, replace=False)).astype(np.uint16)
        tokens = rng.standard_normal((kept, width)).astype(np.float32)
        asked = rng.integers(0, 2**31, text - 1).tolist()
        samples.append(Sample(i, (n_tokens, 1, n_tokens), where, asked, [3], 0.5, tokens=tokens))
    return Batch(0, 1, 0, tuple(samples))


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize(("kept", "width", "text"), [(1, 1, 1), (16, 64, 20), (64, 33, 5), (0, 8, 2)])
def test_one_sample_never_costs_more_than_its_declared_bound(bits, kept, width, text):
    batch = _batch(np.random.default_rng(0), 1, kept, 64, width, text)
    bound = select.sample_bytes(kept, width, bits, text)
    size = len(encode(batch, width, bits))
    assert size <= bound
    assert bound - size < 64 + 0.2 * bound


def test_the_real_frame_of_the_chosen_samples_fits_the_budget():
    batch = _batch(np.random.default_rng(1), 24, 16, 64, 32, 9)

    def size(some):
        return len(encode(Batch(0, 1, 0, tuple(batch.samples[i] for i in some)), 32, 8))

    chosen = select.within_budget(range(24), size, 6000)
    assert 0 < len(chosen) < 24
    assert size(chosen) <= 6000 < size(range(len(chosen) + 1))
