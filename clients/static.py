"""Device work of `static`: answer the stream with the student as it was shipped, and send nothing."""

from __future__ import annotations

from flwr.app import MetricRecord, RecordDict

from cdc_flower.wire import keys
from clients.counts import answering
from clients.inference import Ask, Work
from clients.task import Task, resident


def work(task: Task) -> Work:
    """Answer this round's samples."""
    student = resident(task.shared, task.models)
    tokens, asked = task.tokens(task.items), task.questions(task.items)
    grids = task.grids(task.items)
    answers = yield Ask(task, student.model, student.initial, tokens, asked, grids=grids)
    task.store.say(task.round, answers.texts)
    counts = answering(task, tokens, asked, answers.ids, grids).metrics()
    own = {keys.VERSION: 0, keys.UPLOADED: 0, keys.TOKENS: 0}
    return RecordDict({keys.METRICS: MetricRecord({**own, **counts})})
