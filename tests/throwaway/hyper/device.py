"""The device: wear the adapter that came, answer, and say what was seen."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from cdc_flower.wire import keys
from clients.counts import answering
from clients.inference import Ask, Work
from clients.store import Adapter
from clients.task import Task, resident


def work(task: Task) -> Work:
    """One round: the mean token (D,) float16 of its pictures goes up."""
    student = resident(task.shared, task.models)
    flat = task.sent.array_records[keys.ARRAYS][keys.PAYLOAD].numpy().astype(np.float32)
    tokens, asked = task.tokens(task.items), task.questions(task.items)
    answers = yield Ask(task, student.model, Adapter.of(flat, task.round), tokens, asked)
    task.store.say(task.round, answers.texts)
    seen = np.concatenate(tokens).mean(0, dtype=np.float32).astype(np.float16)
    metrics = {keys.UPLOADED: len(asked), **answering(task, tokens, asked, answers.ids).metrics()}
    return RecordDict(
        {keys.ARRAYS: ArrayRecord({keys.PAYLOAD: Array(seen)}), keys.METRICS: MetricRecord(metrics)}
    )
