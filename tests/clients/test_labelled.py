"""What `labelled` sends: the samples of `cdc`, with the truth in the place of the device's answers."""

from __future__ import annotations

import pytest

from cdc_flower.uplink import token_batch
from cdc_flower.wire import keys
from cdc_flower.wire.messages import frame_of
from clients import cdc, labelled
from clients.inference import alone

ORDER = {keys.LABELS: keys.TRUE}


def batch(task, content):
    shared = task.shared
    return token_batch.decode(
        frame_of(content), shared.fits, shared.width, shared.vocab, 2**20, transform=shared.transform
    )


def test_the_samples_of_cdc_go_up_with_their_true_answers(make_task):
    task = make_task(uplink_budget=0)
    told = batch(task, alone(labelled.work(make_task(uplink_budget=0, order=ORDER))))
    own = batch(task, alone(cdc.work(task)))
    assert len(told.samples) == len(own.samples) > 0
    for with_label, without in zip(told.samples, own.samples, strict=True):
        item = task.items[with_label.index]
        assert (with_label.index, with_label.question_ids) == (without.index, without.question_ids)
        assert with_label.positions.tolist() == without.positions.tolist()
        assert with_label.answer_ids == task.shared.text.answer_ids(task.source.label(item))[:3]


def test_no_label_is_opened_unless_the_server_says_that_devices_learn_from_labels(make_task):
    with pytest.raises(PermissionError, match="labels are for methods"):
        alone(labelled.work(make_task()))
