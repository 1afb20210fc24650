"""What the teacher says to samples, as the student is taught it.

Answers and largest logits are computed once per sample and kept with it, so replaying one costs the student's
pass only. An answer that was cut at the longest that is allowed teaches its words and no end. The teacher is
not asked about a sample that came with its true answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from cdc_flower.cloud.passes import cut, sequence
from cdc_flower.cloud.replay import CloudSample, PseudoLabelled
from cdc_flower.data.features import Grid
from cdc_flower.models import room, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import Teacher

TOP = 64  # teacher logits kept per answer position
TEACH_BATCH = 64
NEVER = -1e4  # a logit whose probability is 0 in float32, and finite


def grids(samples: Sequence[CloudSample]) -> list[Grid]:
    """Those of the samples' pictures."""
    return [Grid(*s.grid) for s in samples]


@torch.no_grad()
def teach(
    shared: Shared, teacher: Teacher, samples: Sequence[CloudSample], longest: int = 0
) -> tuple[list[PseudoLabelled], list[str]]:
    """The teacher's answers to samples, in order; those that have labels are taught these.

    Args:
        shared: the student's.
        teacher: reads what a sample holds for it, where it differs from the student.
        longest: as `read` in `Cloud`.
    """
    true = {i: lesson_of_label(shared, teacher, s) for i, s in enumerate(samples) if s.label is not None}
    if true:
        others, said = teach(shared, teacher, [s for s in samples if s.label is None], longest)
        rest = iter(zip(others, said, strict=True))
        both = [
            (true[i], shared.text.decode(true[i].answer_ids)) if i in true else next(rest)
            for i in range(len(samples))
        ]
        return [q for q, _ in both], [text for _, text in both]
    labelled: list[PseudoLabelled] = []
    texts: list[str] = []
    own = teacher.own or shared
    runs: list[Sequence[CloudSample]] = []
    for start in range(0, len(samples), TEACH_BATCH):
        batch = samples[start : start + TEACH_BATCH]
        lengths = [sequence(own, s.teacher or s, own.max_answer_tokens) for s in batch]
        fit = max(lengths) * room.rows(room.text_of(teacher.model), room.Pass(max(lengths)))
        runs += [batch[some] for some in cut(lengths, min(fit, TEACH_BATCH * longest or fit))]
    for part in runs:
        seen = [s.teacher or s for s in part]
        arrays = [s.tokens for s in seen], [s.question_ids for s in seen]
        spots = [s.positions for s in seen]
        answers = vlm.answer(
            teacher.model,
            own.text,
            vlm.collate(own.text, *arrays, None, spots, grids=grids(seen)),
            own.max_answer_tokens,
            top_k=TOP,
        )
        labelled += _lessons(shared, teacher, part, answers)
        texts += answers.texts
    return labelled, texts


def lesson_of_label(shared: Shared, teacher: Teacher, sample: CloudSample) -> PseudoLabelled:
    """A sample's true answer as if a teacher without any doubt had given it, so that CE and KL both are the
    cross entropy of the label. One of the longest length that is allowed may have been cut, and has no end.
    """
    assert sample.label is not None
    ids, most = list(sample.label[: shared.max_answer_tokens]), shared.max_answer_tokens
    steps = ids + [shared.text.eos] * (len(ids) < most)
    width = min(TOP, shared.vocab) if teacher.words else 1
    top_logits = np.full((len(steps), width), NEVER, np.float32)
    top_logits[:, 0] = 0
    top_ids = np.repeat(np.array(steps, np.int64)[:, None], width, 1)
    return PseudoLabelled(replace(sample, teacher=None, label=None), ids, top_ids, top_logits, 1.0)


def _lessons(
    shared: Shared, teacher: Teacher, samples: Sequence[CloudSample], answers: vlm.Answers
) -> Iterator[PseudoLabelled]:
    """What the student is taught of samples: the teacher's ids and logits, or, where its ids are not those of
    the student, the text in the student's ids.
    """
    own, most = teacher.own or shared, shared.max_answer_tokens
    for i, (sample, ids) in enumerate(zip(samples, answers.ids, strict=True)):
        top_ids, top_logits = answers.top_ids[i], answers.top_logits[i]
        ended = len(ids) < own.max_answer_tokens or int(top_ids[-1, 0]) in own.text.ends
        if not teacher.words:
            told = shared.text.answer_ids(own.text.words(ids).strip())
            ids, ended = told[:most], ended and len(told) <= most
            finite = 0.0 if np.isfinite(top_logits).all() else np.nan
            top_ids, top_logits = np.zeros((len(ids) + 1, 1), np.int64), np.full((len(ids) + 1, 1), finite)
        steps, sure = len(ids) + ended, float(answers.confidence[i])
        kept = sample if sample.teacher is None else replace(sample, teacher=None)
        yield PseudoLabelled(kept, ids, top_ids[:steps], top_logits[:steps].astype(np.float32), sure)


def sure(lesson: PseudoLabelled, least: float) -> bool:
    """Whether an answer teaches: its confidence is at least that, and all that was said of it is finite."""
    return lesson.confidence >= least and bool(np.isfinite(lesson.top_logits).all())
