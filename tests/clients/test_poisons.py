"""Every kind of harm keeps the form of an honest batch, fits into the budget, and is what its name says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cdc_flower.data.features import Grid
from cdc_flower.models import vlm
from cdc_flower.models.student import twin_model
from cdc_flower.rules import POISONS
from cdc_flower.uplink import token_batch
from cdc_flower.uplink.sample import Batch, Limits
from cdc_flower.wire.messages import frame_of
from clients import cdc, poison
from clients.inference import alone
from clients.poisons import CREEP, KINDS, REACH, SOME, _apart, _misled, aimed, reached
from clients.task import Task


def batch_of(task: Task, frame: bytes) -> Batch:
    """As the cloud reads it, within the limits of an honest device."""
    shared, up = task.shared, task.config.uplink
    limits = Limits(task.config.run.samples_per_round, 64, shared.max_answer_tokens, up.tokens_kept)
    turn = shared.transform_for(up)
    return token_batch.decode(
        frame, shared.fits, shared.width, shared.vocab, up.budget, limits=limits, transform=turn
    )


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Searches for tokens are short here."""
    monkeypatch.setattr("clients.poisons.STEPS", 8)


@pytest.fixture
def harm(make_task):
    """`harm(kind, device=0, round=1)`: the task, its honest batch and the harmful one."""

    def make(kind: str, device: int = 0, round: int = 1) -> tuple[Task, Batch, Batch]:
        task = make_task(device=device, round=round, poison_devices=f"0,1:{kind}")
        honest = frame_of(alone(cdc.work(task)))
        reply = poison.poisoned(task, alone(cdc.work(task)))
        return task, batch_of(task, honest), batch_of(task, frame_of(reply))

    return make


def test_all_kinds_have_a_name_in_the_settings():
    assert tuple(KINDS) == POISONS


@pytest.mark.parametrize("kind", POISONS)
def test_a_kind_keeps_the_form_of_a_batch_and_changes_it(kind, harm):
    _, honest, harmful = harm(kind, round=2)
    assert (harmful.device, harmful.round, harmful.version) == (honest.device, 2, honest.version)
    assert 1 <= len(harmful.samples) <= len(honest.samples)
    same = [
        np.array_equal(a.tokens, b.tokens)
        and a.question_ids == b.question_ids
        and list(a.answer_ids) == list(b.answer_ids)
        for a, b in zip(honest.samples, harmful.samples, strict=False)
    ]
    assert not all(same)


def test_sybils_send_the_same_whoever_and_whenever(harm):
    found = [harm("sybil", *who)[2].samples for who in ((0, 1), (1, 1), (1, 2))]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a.question_ids == b.question_ids
            np.testing.assert_array_equal(a.tokens, b.tokens)


@pytest.mark.parametrize("kind", ["huge", "flood"])
def test_huge_tokens_are_huge(kind, harm):
    _, honest, harmful = harm(kind)
    a, b = (np.abs(np.concatenate([s.tokens for s in some.samples])).mean() for some in (honest, harmful))
    assert b > 50 * a


def test_misleading_tokens_stay_near_honest_ones(make_task):
    task = make_task(poison_devices="0:misleading")
    honest = batch_of(task, frame_of(alone(cdc.work(task))))
    seen = np.concatenate([s.tokens for s in honest.samples])
    found = KINDS["misleading"](task, honest, [0])
    assert all(
        (np.abs(a.tokens - b.tokens) <= 1.001 * REACH * seen.std(0) + 1e-5).all()
        for a, b in zip(honest.samples, found, strict=True)
    )


@pytest.mark.parametrize(("kind", "most"), [("colliding", REACH), ("creeping", CREEP)])
def test_colliding_tokens_are_those_that_the_student_sees_no_difference_in(kind, most, make_task):
    task = make_task(poison_devices=f"0:{kind}")
    honest = batch_of(task, frame_of(alone(cdc.work(task))))
    seen = np.concatenate([s.tokens for s in honest.samples]).std(0)
    student = twin_model(task.shared, task.config.pair)

    def states(samples):
        text, grids = task.shared.text, [Grid(*s.grid) for s in samples]
        asked, spots = [s.question_ids for s in samples], [s.positions for s in samples]
        inputs = vlm.collate(text, [s.tokens for s in samples], asked, None, spots, grids=grids)
        with torch.no_grad():
            return vlm.forward(student, inputs)

    first = states(honest.samples)
    found = KINDS[kind](task, honest, [0])
    seen_of = {
        name: float(_apart(states(KINDS[name](task, honest, [0])), first)) for name in ("misleading", kind)
    }
    assert 0 < seen_of[kind] < seen_of["misleading"]
    assert all(
        (np.abs(a.tokens - b.tokens) <= 1.001 * most * seen + 1e-5).all()
        for a, b in zip(honest.samples, found, strict=True)
    )


def test_what_a_search_reaches_is_counted_in_answers(make_task, monkeypatch):
    task = make_task(poison_devices="0:colliding")
    honest = batch_of(task, frame_of(alone(cdc.work(task))))
    hit, same = reached(task, honest, honest.samples)
    assert same == 1.0
    monkeypatch.setattr("clients.poisons.STEPS", 60)
    found = reached(task, honest, _misled(task, honest, most=30.0))
    assert found[0] > hit
    assert found[1] < 1.0


def test_a_swamp_has_all_samples_of_a_round_and_few_tokens_of_each(harm):
    task, _, harmful = harm("swamp")
    assert len(harmful.samples) == len(task.items)
    assert max(len(s.positions) for s in harmful.samples) <= SOME


def test_the_answer_that_is_aimed_at_is_another_of_the_same_question():
    said, asked = [[1], [2], [1], [5]], [[7], [7], [8], [8]]
    assert [aimed(said, asked, i) for i in range(4)] == [[2], [1], [5], [1]]
    assert aimed([[3], [3]], [[7], [7]], 0) == [3]
