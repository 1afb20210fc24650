"""Claims about symbols: those of the definition however the update is cut into chunks, and sizes near what is
written.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.downlink import candidates, significant

FINITE = st.floats(-1e6, 1e6, width=32)
TENSORS = st.lists(st.lists(FINITE, max_size=12), min_size=1, max_size=5)


def _found(tensors, threshold):
    x = np.array([v for t in tensors for v in t], np.float32)
    bounds = np.cumsum([0, *map(len, tensors)])
    return x, candidates.collect(x, bounds, threshold, float(np.abs(x).max(initial=1.0)))


@given(TENSORS, st.floats(1e-3, 1e3), st.floats(0.5, 3), st.sampled_from([2, 7, 2**16]))
def test_symbols_and_what_they_gain_are_those_of_the_definition(tensors, step, dead, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_BLOCK", block)
        patch.setattr(candidates, "_CHUNK", block)
        x, found = _found(tensors, dead * step * 0.99)
    plan = significant.symbols(found, step, dead)
    whole = np.zeros(len(x), np.int64)
    for part in plan.parts():
        whole[part.where] = part.magnitude
    ratio = np.abs(x.astype(np.float64)) / step
    quotient = ratio + min(max(1 - dead, 0.35), 0.5)
    expected = np.where(ratio >= dead, np.maximum(quotient.astype(np.int64), 1), 0)
    near = np.abs(quotient - np.rint(quotient)) < 1e-6 * quotient  # float32 may round to the other side
    near |= np.abs(ratio - dead) < 1e-6 * dead
    assert np.array_equal(whole[~near], expected[~near])
    assert plan.count == np.count_nonzero(whole)
    magnitude = np.abs(x.astype(np.float64))
    spared = (magnitude**2).sum() - ((magnitude - whole * step) ** 2).sum()
    assert plan.gain == pytest.approx(spared, rel=1e-3, abs=1e-4 * (magnitude**2).sum())
    sent = [bool(whole[a:b].any()) for a, b in zip(found.bounds, found.bounds[1:], strict=False)]
    assert (plan.labels > 0).tolist() == sent


@given(TENSORS, st.sampled_from([2, 7]))
def test_sizes_do_not_depend_on_the_chunks(tensors, block):
    plans = []
    for size in (block, 2**16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(candidates, "_BLOCK", size)
            patch.setattr(candidates, "_CHUNK", size)
            plans.append(significant.symbols(_found(tensors, 0.3)[1], 1.0, 0.5))
    assert plans[0].bits == pytest.approx(plans[1].bits)
    assert plans[0].fixed == plans[1].fixed
    assert plans[0].labels.tolist() == plans[1].labels.tolist()


@pytest.mark.parametrize("few", [0, 10**6])
def test_tokens_are_counted_alike_tensor_by_tensor_and_at_once(few, monkeypatch):
    rng = np.random.default_rng(0)
    tensors = [rng.laplace(scale=rng.random() + 0.1, size=300).astype(np.float32) for _ in range(20)]
    plans = [significant.symbols(_found(tensors, 0.3)[1], 0.5, 0.7)]
    monkeypatch.setattr(significant, "_FEW", few)
    plans.append(significant.symbols(_found(tensors, 0.3)[1], 0.5, 0.7))
    assert plans[0].labels.max() > 1
    assert (plans[0].bits, plans[0].fixed) == (plans[1].bits, plans[1].fixed)


def test_tensors_of_two_densities_become_two_classes_from_dense_to_sparse():
    rng = np.random.default_rng(0)
    tensors = [(rng.random(2000) < p).astype(np.float32) for p in (0.02, 0.5, 0.02, 0.5, 0.0)]
    found = _found(tensors, 0.5)[1]
    assert significant.symbols(found, 1.0, 0.5).labels.tolist() == [2, 1, 2, 1, 0]
    kept = significant.symbols(found, 1.0, 0.5, labels=np.array([1, 1, 1, 1, 0]))
    assert kept.labels.tolist() == [1, 1, 1, 1, 0]
    best = significant.symbols(found, 1.0, 0.5)
    assert best.bits + 8 * best.fixed < kept.bits + 8 * kept.fixed
