"""Who teaches a sample of A, whose label the cloud has: the teacher, the student as shipped, or the label.

A teacher that knows the new things may be worse at the old ones than the student was; taught by such a
teacher the student forgets. Who is better is measured on A's validation part: on what it was trained on, a
model that learned it by heart looks perfect. Of each sample the better model's answer is taught where it is
right, else the other's where that is right, else the label. A right model teaches more than the label does:
its logits say how sure it is, and of what else it thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from cdc_flower.cloud.lessons import lesson_of_label, sure, teach
from cdc_flower.cloud.replay import PseudoLabelled
from cdc_flower.cloud.source import SourceItem
from cdc_flower.config import Config
from cdc_flower.models.shared import Shared
from cdc_flower.models.teacher import Teacher
from cdc_flower.tasks import Worth

RIGHT = 0.5  # of what the label itself is worth: an answer of at least that is right


@dataclass(frozen=True)
class SourceLessons:
    """What is taught of samples of A.

    Attributes:
        lessons: one a sample, in their order.
        taught: teacher, student, label -> how many samples each teaches.
        worth: teacher, student -> mean worth of their answers to the validation part; {} where not asked.
    """

    lessons: list[PseudoLabelled]
    taught: dict[str, int]
    worth: dict[str, float]

    @property
    def worse(self) -> bool:
        """Whether the teacher was found to be worth less than the student."""
        return self.worth.get("teacher", 0.0) < self.worth.get("student", 0.0)


def source_lessons(
    config: Config,
    shared: Shared,
    teacher: Teacher,
    student: nn.Module,
    items: Sequence[SourceItem],
    held: Sequence[SourceItem],
    worth: Worth,
    read: int = 0,
) -> SourceLessons:
    """What the student is taught of samples of A.

    Args:
        config: `cloud.source-teacher` says who teaches.
        shared: the student's.
        teacher: of the run.
        student: as shipped, in float.
        items: A's training part.
        held: A's validation part; with none the teacher is asked first.
        worth: of an answer.
        read: as in `cdc_flower.cloud.distill.Cloud`.
    """
    who, found = config.cloud.source_teacher, dict[str, float]()
    models = {"teacher": teacher, "student": Teacher(student, teacher.digest, words=teacher.words)}

    def said(name: str, some: Sequence[SourceItem]) -> tuple[list[PseudoLabelled], np.ndarray]:
        """The lessons of a model, and the worth of its answers."""
        own = [i.sample if name == "teacher" else replace(i.sample, teacher=None) for i in some]
        lessons, texts = teach(shared, models[name], own, read)
        return lessons, np.array([worth(t, i.truth) for t, i in zip(texts, some, strict=True)])

    asked = [name for name in models if who in (name, "auto")]
    if who == "auto" and held and items:
        found = {name: float(said(name, held)[1].mean()) for name in models}
        asked.sort(key=lambda name: -found[name])
    lessons: dict[int, PseudoLabelled] = {}
    taught = dict.fromkeys((*models, "label"), 0)
    for name in asked:
        left = [i for i in range(len(items)) if i not in lessons]
        for i, lesson, worthy in zip(left, *said(name, [items[i] for i in left]), strict=True):
            right = worthy > 0 and worthy >= RIGHT * worth(items[i].answer, items[i].truth)
            if who == name or (right and sure(lesson, config.cloud.confidence)):
                lessons[i], taught[name] = lesson, taught[name] + 1
    for i, item in enumerate(items):
        if i not in lessons:
            label = tuple(shared.text.answer_ids(item.answer))
            lessons[i] = lesson_of_label(shared, teacher, replace(item.sample, label=label))
    taught["label"] = len(items) - sum(taught.values())
    return SourceLessons([lessons[i] for i in range(len(items))], taught, found)
