"""Episodes on the small pair: what is shown and asked, and that a student wears what was generated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdc_flower.cloud.episodes import drawn
from cdc_flower.models import adapters, vlm


def test_an_episode_asks_about_other_clips_than_it_shows(users):
    for seed in range(5):
        one = drawn(users[0], np.random.default_rng(seed))
        shown, asked = ({id(users[0].samples[i].tokens) for i in rows} for rows in (one.support, one.queries))
        assert shown
        assert asked
        assert not shown & asked


@pytest.mark.parametrize("kind", ["head", "basis"])
def test_logits_of_generated_values_are_those_of_the_student_that_wears_them(kind, users, parts, shared):
    adaptor, student = parts(kind)
    with torch.no_grad():
        adaptor.basis.normal_(std=0.05)
    one = drawn(users[0], np.random.default_rng(0))
    seen = users[0].seen.some(one.support)
    with torch.no_grad():
        found, wanted = student.logits(adaptor.generated(adaptor.summary(seen)), one)
    samples = [users[0].samples[i] for i in one.queries]
    answers = [users[0].answers[i] for i in one.queries]
    inputs = vlm.collate(
        shared.text,
        [s.tokens for s in samples],
        [s.question_ids for s in samples],
        answers,
        [s.positions for s in samples],
        grids=[s.grid for s in samples],
    )
    with adapters.wearing(student.model, adaptor.adapter(seen)) as model, torch.no_grad():
        true = vlm.forward(model, inputs).logits
    torch.testing.assert_close(found, true, atol=1e-4, rtol=1e-4)
    assert torch.equal(wanted, inputs.answer_ids)
    assert student.head_alone is (kind == "head")


def test_a_user_with_one_clip_is_both(users):
    one = users[0]
    first = one.clips[0]
    alone = replace(
        one,
        seen=one.seen.some(first),
        samples=[one.samples[i] for i in first],
        answers=[one.answers[i] for i in first],
    )
    found = drawn(alone, np.random.default_rng(0))
    assert found.support
    assert found.queries
