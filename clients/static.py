"""Device work of `static`: answer the stream with the student as it was shipped, and send nothing."""

from __future__ import annotations

import time

from flwr.app import Context, Message, MetricRecord, RecordDict

from cdc_flower.models import adapters
from cdc_flower.wire import keys
from clients import evaluate
from clients.task import Task, answer, pictures, questions, resident


def work(task: Task, message: Message, context: Context) -> RecordDict:
    """Answer this round's samples."""
    began = time.perf_counter()
    student = resident(task.pair, task.config.pair)
    adapters.write(student.model, student.initial)
    answers, spent = answer(task, student.model, pictures(task, task.rows), questions(task, task.rows))
    evaluate.record(context.state, task.world, task.rows, answers.texts, task.round)
    return RecordDict(
        {
            keys.METRICS: MetricRecord(
                {
                    keys.VERSION: 0,
                    keys.UPLOADED: 0,
                    keys.TOKENS: 0,
                    keys.FORWARD: spent,
                    keys.BACKWARD: 0,
                    keys.SECONDS: time.perf_counter() - began,
                }
            )
        }
    )
