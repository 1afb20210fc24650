"""Greedy answers, with what uncertainty and teaching need of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cdc_flower.models import vlm
from cdc_flower.models.student import twin_model


@pytest.fixture(scope="module")
def tokens(shared):
    return np.random.default_rng(0).normal(size=(4, shared.n_tokens, shared.width)).astype(np.float32)


@pytest.fixture(scope="module")
def questions(shared):
    asked = [
        "where is the star?",
        "is there a red heart?",
        "what is at the top?",
        "how many red things are there?",
    ]
    return [shared.text.question_ids(q) for q in asked]


def test_greedy_answers_are_what_teacher_forcing_calls_correct(shared, tokens, questions, config):
    twin = twin_model(shared, config.pair)
    found = vlm.answer(twin, shared.text, vlm.collate(shared.text, tokens, questions), 6)
    ended = [len(i) < 6 for i in found.ids]
    same = vlm.correct(twin, vlm.collate(shared.text, tokens, questions, found.ids))
    assert same[np.array(ended)].all()
    other = [[*i, 7] if i[-1:] != [7] else [*i, 8] for i in found.ids]
    assert not vlm.correct(twin, vlm.collate(shared.text, tokens, questions, other)).any()


def test_greedy_decoding_with_a_cache_equals_decoding_without(shared, teacher, tokens, questions):
    found = vlm.answer(teacher.model, shared.text, vlm.collate(shared.text, tokens, questions), 4)
    for i in range(4):
        ids: list[int] = []
        for _ in range(4):
            inputs = vlm.collate(shared.text, tokens[i : i + 1], [questions[i]], [ids])
            best = int(vlm.forward(teacher.model, inputs).logits[0, len(ids)].argmax())
            if best == shared.text.eos:
                break
            ids.append(best)
        assert found.ids[i] == ids


def test_entropy_and_confidence_are_length_normalised(shared, teacher, tokens, questions):
    found = vlm.answer(teacher.model, shared.text, vlm.collate(shared.text, tokens, questions), 4)
    assert ((found.entropy >= 0) & (found.entropy <= np.log(shared.vocab) + 1e-6)).all()
    steps = np.array([min(len(i) + 1, 4) for i in found.ids])
    np.testing.assert_allclose(found.confidence, np.exp(found.log_prob / steps), rtol=1e-5)


@pytest.mark.parametrize("max_new", [1, 2, 6])
def test_the_largest_logits_of_an_answer_are_those_of_teacher_forcing_also_where_it_is_cut(
    shared, teacher, tokens, questions, max_new
):
    found = vlm.answer(
        teacher.model, shared.text, vlm.collate(shared.text, tokens, questions), max_new, top_k=3
    )
    told = vlm.collate(shared.text, tokens, questions, found.ids)
    with torch.no_grad():
        logits = vlm.forward(teacher.model, told).logits
    for i, ids in enumerate(found.ids):
        assert len(ids) <= max_new
        assert found.top_ids[i].shape == found.top_logits[i].shape == (len(ids) + 1, 3)
        assert found.top_ids[i][: len(ids), 0].tolist() == ids
        expected = logits[i, : len(ids) + 1].topk(3, -1).values.numpy()
        np.testing.assert_allclose(found.top_logits[i], expected, atol=1e-4)


def test_dropped_tokens_are_absent_not_zeroed(shared, teacher, tokens, questions):
    kept = [np.arange(0, shared.n_tokens, 2)] * 4
    some = [t[k] for t, k in zip(tokens, kept, strict=True)]
    zeroed = tokens.copy()
    zeroed[:, 1::2] = 0
    absent = vlm.forward(teacher.model, vlm.collate(shared.text, some, questions, None, kept))
    zeros = vlm.forward(teacher.model, vlm.collate(shared.text, zeroed, questions))
    assert absent.hidden.shape[1] == zeros.hidden.shape[1] - shared.n_tokens // 2
    assert not torch.allclose(absent.logits, zeros.logits, atol=1e-3)


def test_any_of_several_end_tokens_ends_an_answer(shared, teacher, tokens, questions):
    inputs = vlm.collate(shared.text, tokens, questions)
    found = vlm.answer(teacher.model, shared.text, inputs, 6).ids
    first = next(ids[0] for ids in found if ids)
    ends = dataclasses.replace(shared.text, ends=(shared.text.eos, first))
    cut = vlm.answer(teacher.model, ends, inputs, 6).ids
    assert cut == [ids[: ids.index(first)] if first in ids else ids for ids in found]
