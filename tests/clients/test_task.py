"""What every kind of device work stands on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdc_flower.config import flat, parse
from cdc_flower.models import adapters
from clients.task import resident


def test_the_initial_adapter_stays_version_0_whatever_devices_write(make_task):
    task = make_task()
    student = resident(task.shared, task.config.pair)
    before = student.initial.flat.copy()
    adapters.write(student.model, before + 1)
    assert resident(task.shared, task.config.pair) is student
    np.testing.assert_array_equal(student.initial.flat, before)
    adapters.write(student.model, before)


def test_items_tokens_and_questions_belong_together(make_task, world_of):
    task = make_task(device=1, round=2)
    world = world_of(task)
    frame = world.train.iloc[world.streams[1][1]]
    tokens = task.tokens(task.items)
    assert [t.shape for t in tokens] == [(task.shared.n_tokens, task.shared.width)] * 6
    for i, (row, question) in enumerate(zip(frame["image_row"], frame["question"], strict=True)):
        np.testing.assert_array_equal(tokens[i], world.train_tokens[row])
        assert task.questions(task.items)[i] == task.shared.text.question_ids(question)


def test_labels_are_for_those_whose_order_says_so(make_task, world_of):
    taught = make_task(order={"labels": "true"})
    labels = world_of(taught).train["answer"].iloc[taught.items]
    assert taught.labels(taught.items) == [taught.shared.text.answer_ids(a) for a in labels]
    for order in ({"labels": "own"}, {}):
        with pytest.raises(PermissionError):
            make_task(order=order).labels([0])


def test_random_draws_differ_between_devices_rounds_and_purposes(make_task):
    draws = {
        make_task(device=d, round=r).rng(p).integers(2**60)
        for d in (0, 1)
        for r in (1, 2)
        for p in ("a", "b")
    }
    assert len(draws) == 8
    assert make_task().rng("a").integers(2**60) in draws


def test_random_draws_differ_between_seeds_of_the_run(make_task):
    task = make_task()
    seeds = [replace(task, config=parse({**flat(task.config), "run.seed": seed})) for seed in (0, 1, 2)]
    assert len({one.rng("a").integers(2**60) for one in seeds}) == 3
    assert seeds[0].rng("a").integers(2**60) == task.rng("a").integers(2**60)
