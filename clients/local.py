"""Device work of `local`: answer the stream with an adapter of one's own, then train it on true labels.

Training is that of `fedavg_lora` (`clients.fedavg.fit`), from where the device's own training of the round
before ended, in float32, which nothing rounds because nothing is sent.
"""

from __future__ import annotations

from flwr.app import MetricRecord, RecordDict

from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from clients.counts import answering
from clients.fedavg import check, fit, memory, trainee
from clients.inference import Ask, Work
from clients.store import Adapter
from clients.task import Task


@kept(4)
def untrained(shared: Shared, config: PairConfig) -> Adapter:
    """Version 0 of the adapter of `clients.fedavg.trainee`, with which every device begins."""
    return Adapter.of(adapters.read(twin_model(shared, config)), 0)


def reply(examples: int, loss: float, counts: Counts) -> RecordDict:
    """All that a device says that shares nothing."""
    metrics = {keys.EXAMPLES: examples, "loss": loss, **counts.metrics()}
    return RecordDict({keys.METRICS: MetricRecord(metrics)})


def work(task: Task) -> Work:
    """One round on a device."""
    check(task.order)
    model = trainee(task.shared, task.config.pair, False)
    held = task.store.held(untrained(task.shared, task.config.pair))
    tokens, asked = task.tokens(task.items), task.questions(task.items)
    grids = task.grids(task.items)
    answers = yield Ask(task, model, held, tokens, asked, grids=grids)
    adapters.write(model, held.flat)  # another device may have trained meanwhile
    task.store.say(task.round, answers.texts)
    items = memory(task)
    told = task.tokens(items), task.questions(items), task.labels(items), task.grids(items)
    loss, trained = fit(task, model, *told)
    task.store.hold(Adapter.of(adapters.read(model), task.round))
    return reply(len(items), loss, answering(task, tokens, asked, answers.ids, grids) + trained)
