"""Further questions: of others, about a picture that is there, answered by the teacher."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cdc_flower.cloud.further import asked_of, with_more
from cdc_flower.cloud.replay import CloudSample, PseudoLabelled


def sample(name: int) -> CloudSample:
    tokens = np.full((3, 2), name, np.float32)
    read = CloudSample(tokens, np.arange(3), [100 + name], (3, 1, 3))
    return CloudSample(tokens, np.arange(3), [name], (3, 1, 3), read, (7,))


def lesson(one: CloudSample) -> PseudoLabelled:
    zeros = np.zeros((2, 4), np.int64), np.zeros((2, 4), np.float32)
    return PseudoLabelled(replace(one, teacher=None, label=None), [1], *zeros, 0.9, 0.5)


def test_the_question_of_another_sample_goes_to_who_reads_the_picture_and_its_label_does_not():
    found = asked_of(sample(1), sample(2))
    assert (found.question_ids, found.label) == ([2], None)
    assert found.tokens[0, 0] == 1
    assert found.teacher is not None
    assert (found.teacher.question_ids, found.teacher.tokens[0, 0]) == ([102], 1)
    assert asked_of(replace(sample(1), teacher=None), sample(2)).teacher is None


def test_each_picture_gets_sure_answers_to_questions_that_were_asked():
    pictures = [sample(i) for i in range(5)]
    lessons = [lesson(one) for one in pictures]
    seen: list[CloudSample] = []

    def answer(some):
        seen.extend(some)
        return [lesson(one) for one in some]

    found = with_more(
        pictures,
        lessons,
        pictures[:3],
        2,
        np.random.default_rng(0),
        answer,
        lambda q: q.sample.question_ids != [0],
    )
    assert len(seen) == 10
    for i, one in enumerate(found):
        asked = [q.question_ids for q in seen[2 * i : 2 * i + 2]]
        assert {q.tokens[0, 0] for q in seen[2 * i : 2 * i + 2]} == {i}
        assert [q.sample.question_ids for q in one.more] == [q for q in asked if q != [0]]
        assert all(q.sample.tokens is one.sample.tokens and q.weight == 0.5 for q in one.more)
        assert replace(one, more=()) == lessons[i]
    assert 0 < sum(len(one.more) for one in found) < 10
