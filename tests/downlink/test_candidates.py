"""Claims about candidates: those of the definition, however they are cut into chunks or found again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.downlink import candidates
from tests.downlink.test_significant import TENSORS, _found


@given(TENSORS, st.floats(0.5, 3, width=32), st.sampled_from([2, 7, 2**16]))
def test_narrowed_candidates_are_those_of_the_higher_threshold(tensors, threshold, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_CHUNK", block)
        fewer = candidates.narrowed(_found(tensors, 0.3)[1], threshold)
    expected = _found(tensors, threshold)[1]
    assert fewer.counts.tolist() == expected.counts.tolist()
    for name in ("where", "value"):
        rows = [np.concatenate([[], *(getattr(c, name) for c in f.chunks)]) for f in (fewer, expected)]
        assert rows[0].tolist() == rows[1].tolist()


@given(TENSORS, st.sampled_from([2, 7, 2**16]))
def test_candidates_that_are_not_kept_are_collected_each_time(tensors, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_BLOCK", block)
        patch.setattr(candidates, "_CHUNK", block)
        x, kept = _found(tensors, 0.3)
        peak = float(np.abs(x).max(initial=1.0))
        anew = candidates.collect(x, kept.bounds, 0.3, peak, keep=False)
        places = [[c.where.tolist() for c in found.chunks] for found in (kept, anew, anew)]
    assert places[0] == places[1] == places[2]
    assert kept.counts.tolist() == anew.counts.tolist()
