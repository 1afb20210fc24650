"""Device work of `static`: answer the stream with the student as it was shipped, and send nothing."""

from __future__ import annotations

from flwr.app import Context, Message, MetricRecord, RecordDict

from cdc_flower.wire import keys
from clients import evaluate
from clients.inference import Ask, Work
from clients.task import Task, decoded, pass_flops, pictures, questions, resident


def work(task: Task, message: Message, context: Context) -> Work:
    """Answer this round's samples."""
    student = resident(task.shared, task.models)
    asked = questions(task, task.rows)
    answers = yield Ask(task, student.model, student.initial, pictures(task, task.rows), asked)
    spent = pass_flops(task, student.model, asked, [len(ids) for ids in answers.ids])
    evaluate.record(context.state, task.world, task.rows, answers.texts, task.round)
    return RecordDict(
        {
            keys.METRICS: MetricRecord(
                {
                    keys.VERSION: 0,
                    keys.UPLOADED: 0,
                    keys.TOKENS: 0,
                    keys.DECODED: decoded(task, answers),
                    keys.FORWARD: spent,
                    keys.BACKWARD: 0,
                }
            )
        }
    )
