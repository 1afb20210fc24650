"""Further questions about pictures the cloud has: what one device asked of its picture, asked of others.

A picture that came up cost its bytes whatever is asked of it. The teacher answers further questions about it,
so that a picture teaches more than the one question that a device had; questions that do not fit a picture
get an unsure answer, and that is dropped or counts little. Of a picture that is of the source, questions that
drifted in are the only lessons about whole pictures that the new kinds of question have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from cdc_flower.cloud.replay import CloudSample, PseudoLabelled, with_further

Answer = Callable[[Sequence[CloudSample]], list[PseudoLabelled]]
"""Samples -> lessons, in order."""


def asked_of(picture: CloudSample, other: CloudSample) -> CloudSample:
    """The question of `other` about the picture of a sample, for each who reads it; without a label."""
    own, others = picture.teacher, other.teacher
    reads = None if own is None or others is None else asked_of(own, others)
    return replace(picture, question_ids=other.question_ids, teacher=reads, label=None)


def with_more(
    pictures: Sequence[CloudSample],
    lessons: Sequence[PseudoLabelled],
    asked: Sequence[CloudSample],
    count: int,
    rng: np.random.Generator,
    answer: Answer,
    sure: Callable[[PseudoLabelled], bool],
) -> list[PseudoLabelled]:
    """Lessons with up to `count` further questions each.

    Args:
        pictures: the sample of each lesson, as the teacher reads it.
        lessons: what was taught of them so far; what they had of further questions is replaced.
        asked: samples whose questions are drawn, with replacement.
        count: questions drawn a picture; an unsure answer teaches nothing.
        rng: of the draws.
        answer: the teacher.
        sure: whether a lesson teaches.
    """
    drawn = rng.integers(len(asked), size=(len(pictures), count)).tolist()
    told = iter(answer([asked_of(s, asked[i]) for s, row in zip(pictures, drawn, strict=True) for i in row]))
    return [
        with_further(one, [replace(q, weight=one.weight) for q in islice(told, count) if sure(q)])
        for one in lessons
    ]
