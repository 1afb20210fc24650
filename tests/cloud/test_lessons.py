"""What the teacher says, as it is taught."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from cdc_flower.cloud import lessons as module
from cdc_flower.cloud import losses
from cdc_flower.cloud.lessons import teach
from cdc_flower.models import vlm


def test_the_teachers_answer_does_not_depend_on_who_shares_its_batch(shared, teacher, samples):
    together, texts = teach(shared, teacher, samples)
    backwards, _ = teach(shared, teacher, samples[::-1])
    for i, lesson in enumerate(together):
        (alone,), (text,) = teach(shared, teacher, [samples[i]])
        for other in (alone, backwards[len(samples) - 1 - i]):
            assert other.answer_ids == lesson.answer_ids
            assert other.confidence == pytest.approx(lesson.confidence, abs=1e-4)
            np.testing.assert_allclose(other.top_logits, lesson.top_logits, atol=1e-3)
        assert text == texts[i]


def test_more_samples_than_a_batch_keep_their_order(shared, teacher, samples, monkeypatch):
    whole, texts = teach(shared, teacher, samples)
    monkeypatch.setattr(module, "TEACH_BATCH", 5)
    parts, texts_in_parts = teach(shared, teacher, samples)
    assert texts_in_parts == texts
    assert [q.sample for q in parts] == [q.sample for q in whole] == samples


def test_a_lesson_holds_the_teachers_own_logits_of_its_answer(shared, teacher, samples):
    lesson = teach(shared, teacher, samples[:1])[0][0]
    s = lesson.sample
    inputs = vlm.collate(shared.text, [s.tokens], [s.question_ids], [lesson.answer_ids], [s.positions])
    with torch.no_grad():
        logits = vlm.forward(teacher.model, inputs).logits[0]
    steps = len(lesson.answer_ids) + lesson.ended
    assert lesson.top_ids.shape == (steps, min(module.TOP, shared.vocab))
    np.testing.assert_array_equal(lesson.top_ids[: len(lesson.answer_ids), 0], lesson.answer_ids)
    found = logits[:steps].gather(-1, torch.from_numpy(lesson.top_ids)).numpy()
    np.testing.assert_allclose(found, lesson.top_logits, atol=1e-4)


def test_an_answer_that_was_cut_is_taught_without_an_end(shared, teacher, samples):
    """The steps that are taught are those that the teacher takes when it may say more."""
    short = dataclasses.replace(shared, max_answer_tokens=2)
    for cut, free in zip(teach(short, teacher, samples)[0], teach(shared, teacher, samples)[0], strict=True):
        assert cut.answer_ids == free.answer_ids[:2]
        assert cut.ended == (free.ended and len(free.answer_ids) <= 2)
        assert len(cut.top_ids) == len(cut.top_logits) == len(cut.answer_ids) + cut.ended
        s = cut.sample
        inputs = vlm.collate(
            shared.text, [s.tokens], [s.question_ids], [cut.answer_ids], [s.positions], ended=[cut.ended]
        )
        taught = inputs.answer_ids[0]
        assert taught[taught != -100].tolist() == cut.answer_ids + [shared.text.eos] * cut.ended


@pytest.fixture
def other(shared):
    """The same reader, whose tokenizer gives each word but the special ones the id of another."""
    tokenizer = copy.deepcopy(shared.text.tokenizer)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab = content["model"]["vocab"]
    plain = sorted(word for word, i in vocab.items() if i not in tokenizer.all_special_ids)
    vocab |= dict(zip(plain, [vocab[word] for word in [*plain[1:], plain[0]]], strict=True))
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    return dataclasses.replace(shared, text=dataclasses.replace(shared.text, tokenizer=tokenizer))


def test_a_teacher_of_other_words_teaches_its_text(shared, other, teacher, samples):
    own = dataclasses.replace(other, max_answer_tokens=3)
    short = dataclasses.replace(shared, max_answer_tokens=2)
    unlike = dataclasses.replace(teacher, own=own, words=False)
    told, _ = teach(own, teacher, samples)
    lessons, texts = teach(short, unlike, samples)
    for lesson, said, text in zip(lessons, told, texts, strict=True):
        words = own.text.words(said.answer_ids)
        again = shared.text.answer_ids(words)
        assert text == own.text.decode(said.answer_ids)
        assert lesson.answer_ids == again[:2]
        assert not said.answer_ids or lesson.answer_ids != said.answer_ids[:2]
        assert lesson.ended == (said.ended and len(again) <= 2)
        assert lesson.confidence == said.confidence
        assert lesson.top_ids.shape == (len(lesson.answer_ids) + lesson.ended, 1)


def labelled(shared, sample, words):
    return dataclasses.replace(sample, label=tuple(shared.text.answer_ids(words)))


def test_a_true_answer_is_taught_as_it_is_and_the_teacher_is_asked_about_the_others(shared, teacher, samples):
    asked, texts = teach(shared, teacher, samples[:3])
    mixed = [samples[0], labelled(shared, samples[1], "red"), samples[2]]
    found, said = teach(shared, teacher, mixed)
    assert (said[0], said[1], said[2]) == (texts[0], "red", texts[2])
    assert found[1].answer_ids == shared.text.answer_ids("red")
    assert (found[1].confidence, found[1].ended, found[1].sample) == (1.0, True, samples[1])
    for i in (0, 2):
        assert found[i].answer_ids == asked[i].answer_ids
        np.testing.assert_array_equal(found[i].top_ids, asked[i].top_ids)
    assert found[1].top_ids.shape[1] == found[0].top_ids.shape[1]


def test_ce_and_kl_of_a_true_answer_are_both_its_cross_entropy(shared, teacher, samples):
    ((lesson,), _) = teach(shared, teacher, [labelled(shared, samples[0], "red")])
    steps = torch.tensor([[*lesson.answer_ids, shared.text.eos]])
    logits = torch.randn(1, steps.shape[1], shared.vocab, generator=torch.Generator().manual_seed(0))
    top = torch.from_numpy(lesson.top_ids)[None], torch.from_numpy(lesson.top_logits)[None]
    seen = losses.Seen(logits, steps, *top, torch.ones(1), 1.0, torch.ones(1, 1, dtype=torch.bool))
    ce, kl = (float(losses.LOSSES[name].function(seen)) for name in ("ce", "kl"))
    assert kl == pytest.approx(ce, rel=1e-5)


def test_a_true_answer_of_the_longest_length_has_no_end(shared, teacher, samples):
    short = dataclasses.replace(shared, max_answer_tokens=1)
    ((lesson,), _) = teach(short, teacher, [labelled(shared, samples[0], "red")])
    assert (lesson.ended, len(lesson.top_ids)) == (False, len(lesson.answer_ids))
    assert len(lesson.answer_ids) == 1
