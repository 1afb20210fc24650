"""What passes at once is bounded by ids of padded sequences, and nothing is lost or doubled by cutting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_flower.cloud.passes import cut, longest, passes, sequence
from cdc_flower.cloud.replay import CloudSample, PseudoLabelled
from cdc_flower.models import vlm


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 400))
def test_runs_hold_all_in_order_and_no_more_than_allowed(lengths, most):
    runs = cut(lengths, most)
    assert [n for some in runs for n in lengths[some]] == lengths
    for some in runs:
        assert not most or len(lengths[some]) * max(lengths) <= most or len(lengths[some]) == 1
    if not most or len(lengths) * max(lengths) <= most:
        assert len(runs) == 1


def lesson(shared, kept, question, answer) -> PseudoLabelled:
    tokens, where = np.ones((kept, shared.width), np.float32), np.arange(kept)
    sample = CloudSample(tokens, where, [5] * question, shared.grid)
    return PseudoLabelled(sample, [6] * answer, np.zeros((answer + 1, 3)), np.zeros((answer + 1, 3)), 1.0)


@pytest.mark.parametrize(("kept", "question", "answer"), [(1, 1, 0), (9, 7, 3), (64, 4, 8)])
def test_a_sequence_is_as_long_as_what_passes(shared, kept, question, answer):
    q = lesson(shared, kept, question, answer)
    s = q.sample
    inputs = vlm.collate(shared.text, [s.tokens], [s.question_ids], [q.answer_ids], [s.positions])
    assert sequence(shared, s, answer) == inputs.ids.shape[1]
    assert sequence(shared, lesson(shared, 64, 9, 8).sample, 8) == longest(shared, 9)


def test_groups_are_whole_or_partial_and_their_shares_are_those_of_the_step(shared):
    batch = [lesson(shared, k, 3 + k % 2, k % 3) for k in (4, 64, 9, 5, 64, 7)]
    for most in (0, 10**6, 150, 1):
        parts = [part for some in passes(shared, batch, most) for part in some]
        assert sorted(map(id, batch)) == sorted(id(q) for part in parts for q in part.rows)
        assert sum(part.samples * part.group for part in parts) == pytest.approx(1)
        assert sum(part.positions * part.group for part in parts) == pytest.approx(1)
        assert all(len({q.sample.whole for q in part.rows}) == 1 for part in parts)
    assert [len(some) for some in passes(shared, batch, 10**6)] == [2]
    assert {len(some) for some in passes(shared, batch, 150)} == {1}
    assert all(len(part.rows) * part.length <= 150 for (part,) in passes(shared, batch, 150))
