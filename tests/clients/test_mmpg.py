"""What a device of `mmpg` sends: anchor frames of a few clips, every question, no answer, in the budget."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.uplink import token_batch
from cdc_flower.wire import keys
from cdc_flower.wire.messages import frame_of, message_bytes
from clients import mmpg
from clients.inference import alone

ORDER = {"anchors": "uniform", "frames": 1, "clips": 2}


@pytest.fixture
def played(make_task):
    def play(**more):
        order = {**ORDER, **more.pop("order", {})}
        task = make_task(order=order, **more)
        content = alone(mmpg.work(task))
        shared, frame = task.shared, frame_of(content)
        sent = (
            token_batch.decode(
                frame, shared.fits, shared.width, shared.vocab, 2**20, transform=shared.transform
            ).samples
            if frame
            else ()
        )
        return task, content, sent

    return play


def test_all_questions_go_up_with_anchors_of_a_few_clips_and_without_an_answer(played):
    task, content, sent = played(uplink_budget=0)
    assert [s.question_ids for s in sent] == task.questions(task.items)
    assert all(s.answer_ids == [] for s in sent)
    pictured = [s for s in sent if len(s.positions)]
    assert len(pictured) == 2
    assert all(s.positions.tolist() == list(range(task.shared.n_tokens)) for s in pictured)
    first = {bytes(np.ascontiguousarray(task.source.tokens(task.items[s.index]))) for s in pictured}
    assert len(first) == 2  # each clip once
    metrics = content["metrics"]
    assert metrics[keys.UPLOADED] == len(sent)
    assert metrics[keys.TOKENS] == sum(len(s.positions) for s in sent)


def test_where_the_budget_is_short_clips_stay_behind_before_questions_do(played):
    _, whole, sent = played(uplink_budget=0)
    size = message_bytes(whole)
    _, content, less = played(uplink_budget=size - 200)
    assert message_bytes(content) <= size - 200
    assert len(less) == len(sent)
    assert sum(len(s.positions) > 0 for s in less) < 2
    _, content, none = played(uplink_budget=280)
    assert message_bytes(content) <= 280
    assert len(none) < len(sent)


def test_a_device_that_did_not_come_to_its_adapter_sends_nothing(played):
    _, content, sent = played(order={keys.VERSION: 3})
    assert not sent
    assert content["metrics"][keys.VERSION] == 0


def test_a_server_that_asks_for_everything_gets_what_there_is(played):
    task, _, sent = played(uplink_budget=0, order={"frames": 10**6, "clips": 10**6})
    assert sum(len(s.positions) for s in sent) <= len(task.items) * task.shared.n_tokens
