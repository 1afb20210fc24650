"""What `no_uplink` does on a device: the update is applied, the answers are its own, nothing is sent."""

from __future__ import annotations

import numpy as np

from cdc_flower.downlink.versions import Mirror
from cdc_flower.wire import keys
from clients import cdc, no_uplink
from clients.inference import alone
from clients.task import resident


def test_the_update_is_applied_and_nothing_goes_up(make_task):
    task = make_task()
    student = resident(task.shared, task.config.pair)
    mirror = Mirror(student.initial.flat, student.layout, "fp16", 10_000, 4)
    mirror.advance(student.initial.flat + np.float32(0.01))
    sent = {"order": {keys.VERSION: 1}, "frame": mirror.frame_for(0, student.initial.digest)}
    task = make_task(**sent)
    content = alone(no_uplink.work(task))
    assert "arrays" not in content
    assert content["config"][keys.DIGEST] == mirror.digest
    assert [content["metrics"][k] for k in (keys.VERSION, keys.UPLOADED, keys.TOKENS)] == [1, 0, 0]
    other = make_task(**sent)
    alone(cdc.work(other))
    assert task.store.said(1) == other.store.said(1)
