"""Device work of `no_uplink`: take the update, answer the stream, say which adapter it is."""

from __future__ import annotations

from cdc_flower.wire import keys
from clients.counts import answering
from clients.exchange import reply, updated
from clients.inference import Ask, Work
from clients.task import Task, resident


def work(task: Task) -> Work:
    """One round of `no_uplink` on a device."""
    student = resident(task.shared, task.models)
    adapter, _ = updated(task, student)
    tokens, asked, grids = task.tokens(task.items), task.questions(task.items), task.grids(task.items)
    answers = yield Ask(task, student.model, adapter, tokens, asked, grids=grids)
    task.store.say(task.round, answers.texts)
    counts = answering(task, tokens, asked, answers.ids, grids).metrics()
    own = {keys.VERSION: adapter.version, keys.UPLOADED: 0, keys.TOKENS: 0}
    return reply(b"", adapter.digest, {**own, **counts})
