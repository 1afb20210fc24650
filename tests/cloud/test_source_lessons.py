"""Who teaches a sample of A: the better of both models where it is right, else the other, else the label."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cdc_flower.cloud.lessons import teach
from cdc_flower.cloud.source import SourceItem
from cdc_flower.cloud.source_lessons import source_lessons
from cdc_flower.config import parse
from cdc_flower.models.student import twin_model
from cdc_flower.models.teacher import Teacher
from cdc_flower.tasks import Truth
from tests.conftest import full


def worth(said: str, truth: Truth) -> float:
    return float(said in truth.answers)


@pytest.fixture
def said(shared, teacher, config, samples):
    """What teacher and student say to samples on which they differ, those first."""
    student = twin_model(shared, config.pair)
    texts = [teach(shared, one, samples)[1] for one in (teacher, Teacher(student, ""))]
    differ = [i for i, (a, b) in enumerate(zip(*texts, strict=True)) if a != b]
    assert len(differ) >= 4
    return student, [(samples[i], texts[0][i], texts[1][i]) for i in differ]


@pytest.fixture
def chosen(shared, teacher, settings, said):
    """`chosen(better, **settings)`: lessons of four samples, on which both, the teacher, the student, none is
    right; on the validation part `better` is.
    """
    student, found = said
    right = [(t, s) for (_, t, s) in found[:1]] + [(found[1][1],), (found[2][2],), ("red",)]
    items = [
        SourceItem(sample, Truth("red", of), "source") for (sample, *_), of in zip(found, right, strict=False)
    ]

    def make(better: str, **more):
        held = [
            SourceItem(sample, Truth("", ({"teacher": t, "student": s}.get(better, ""),)), "source")
            for sample, t, s in found
        ]
        config = parse({**settings, "cloud.confidence": 0.0, **full({"source_teacher": "auto", **more})})
        return source_lessons(config, shared, teacher, student, items, held if better else [], worth)

    ids = [
        [q.answer_ids for q in teach(shared, one, [item.sample for item in items])[0]]
        for one in (teacher, Teacher(student, ""))
    ]
    return make, *ids, shared.text.answer_ids("red")


def test_the_better_one_teaches_where_it_is_right_else_the_other_else_the_label(chosen):
    make, teachers, students, label = chosen
    for better, first in (("teacher", teachers), ("student", students), ("", teachers)):
        made = make(better)
        ids = [q.answer_ids for q in made.lessons]
        assert ids == [first[0], teachers[1], students[2], label]
        assert made.taught == {
            "teacher": 1 + (first is teachers),
            "student": 1 + (first is students),
            "label": 1,
        }
        assert made.worth == (
            {name: float(name == better) for name in ("teacher", "student")} if better else {}
        )


def test_one_who_is_named_teaches_all(chosen):
    make, teachers, students, label = chosen
    for who, ids in (("teacher", teachers), ("student", students), ("label", [label] * 4)):
        made = make("student", source_teacher=who)
        assert [q.answer_ids for q in made.lessons] == ids
        assert made.taught == {"teacher": 0, "student": 0, "label": 0, who: 4}


def test_a_right_answer_that_is_unsure_leaves_the_lesson_to_the_label(chosen):
    make, _, _, label = chosen
    assert [q.answer_ids for q in make("teacher", cloud_confidence=1.0).lessons] == [label] * 4


def test_an_answer_of_less_than_half_the_labels_worth_is_not_right(shared, teacher, settings, said):
    student, ((sample, *_), *_) = said
    label = tuple(shared.text.answer_ids("red"))
    for value, ids in ((0.49, label), (0.5, None)):
        items = [SourceItem(sample, Truth("red", ("red",)), "source")]
        config = parse({**settings, "cloud.confidence": 0.0, "cloud.source-teacher": "auto"})
        made = source_lessons(
            config,
            shared,
            teacher,
            student,
            items,
            [],
            lambda said, truth, v=value: 1.0 if said == "red" else v,
        )
        assert (tuple(made.lessons[0].answer_ids) == label) == (ids is not None)


def test_lessons_of_one_batch_have_one_form(shared, teacher, settings, said, chosen):
    """Also where the teacher's ids are not those of the student."""
    make, *_ = chosen
    assert len({q.top_ids.shape[1] for q in make("student").lessons}) == 1
    student, found = said
    other = dataclasses.replace(teacher, words=False)
    items = [SourceItem(sample, Truth("red", (s,)), "source") for sample, _, s in found[:2]]
    items.append(dataclasses.replace(items[0], truth=Truth("red", ("red",))))
    own = {"cloud.confidence": 0.0, "cloud.source-teacher": "auto", "cloud.losses": "ce"}
    config = parse({**settings, **own})
    made = source_lessons(config, shared, other, student, items, [], worth)
    assert made.taught == {"teacher": 0, "student": 2, "label": 1}
    assert {q.top_ids.shape[1] for q in made.lessons} == {1}
    assert all(np.isfinite(q.top_logits).all() for q in made.lessons)
