"""Device work of `eclm`: answer with one's own mix of blocks, then train those blocks on true labels.

In its first round a device finds out which blocks its data need: those whose weights have the largest mean
squared gradient of the loss on its labelled samples, as many as fit into its share of the adapter's weights.
It keeps that mix. From then on it begins with what the cloud merged of these blocks, trains them, keeps what
came out, and sends it up. All other weights are those of version 0.
"""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from torch import nn
from torch.nn import functional as F

from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.wire import keys
from cdc_flower.wire.blocks import Blocks
from cdc_flower.wire.counts import Counts
from cdc_flower.wire.messages import frame_of, payload
from clients.counts import answering, passes
from clients.fedavg import MOST, check, fit, memory, trainee
from clients.inference import Ask, Work
from clients.local import untrained
from clients.store import Adapter, Store
from clients.task import Task

MIX = "mix"  # a record of the state: the blocks, as bytes under keys.PAYLOAD
SEEN = 64  # samples, at most, by which a mix is chosen


@kept(2)
def blocks(shared: Shared, config: PairConfig) -> Blocks:
    """Of the adapter that devices of this process train."""
    return Blocks.read(adapters.layout(trainee(shared, config, False)))


def mix_of(store: Store, every: Blocks) -> list[int]:
    """The blocks of a device; [] before it has chosen."""
    record = store.state.config_records.get(MIX)
    kept = list(bytes(record[keys.PAYLOAD])) if record else []  # type: ignore[arg-type]
    return [block for block in kept if block < len(every.names)]


def worths(task: Task, model: nn.Module, every: Blocks, items: np.ndarray) -> tuple[np.ndarray, Counts]:
    """(blocks,) squared gradient of the mean loss of items, block by block, and what it took."""
    tokens, asked = task.tokens(items), task.questions(items)
    labels, grids = task.labels(items), task.grids(items)
    params = adapters.trainable(model)
    inputs = vlm.collate(task.shared.text, tokens, asked, labels, grids=grids).to(params[0].device)
    assert inputs.answer_ids is not None
    logits = vlm.forward(model, inputs).logits
    loss = F.cross_entropy(logits.flatten(0, 1), inputs.answer_ids.flatten(), ignore_index=-100)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)]).cpu().numpy()
    read = passes(task, tokens, asked, [len(ids) + 1 for ids in labels], grids)
    return np.bincount(every.of, found.astype(float) ** 2), read + Counts(trained=read.positions)


def work(task: Task) -> Work:
    """One round on a device; the reply carries its blocks."""
    check(task.order, {**MOST, "share": 1})
    pair, base = (task.shared, task.config.pair), untrained(task.shared, task.config.pair)
    model, every = trainee(*pair, False), blocks(*pair)
    own = task.store.held(base)
    tokens, asked, grids = task.tokens(task.items), task.questions(task.items), task.grids(task.items)
    answers = yield Ask(task, model, own, tokens, asked, grids=grids)
    task.store.say(task.round, answers.texts)
    counts, items = answering(task, tokens, asked, answers.ids, grids), memory(task)
    start, mix = base.flat.copy(), mix_of(task.store, every)
    if frame := frame_of(task.sent):
        sent, values = every.decode(frame)
        start[every.places(sent)] = values
        mix = mix or sent  # a device that lost its state
    adapters.write(model, start)
    if not mix:
        worth, looked = worths(task, model, every, items[-SEEN:])
        mix, counts = every.fitting(worth, float(task.order["share"])), counts + looked
        task.store.state[MIX] = ConfigRecord({keys.PAYLOAD: bytes(mix)})
    told = task.tokens(items), task.questions(items), task.labels(items), task.grids(items)
    loss, trained = fit(task, model, *told)
    data = every.encode(mix, adapters.read(model))
    flat = base.flat.copy()
    flat[every.places(mix)] = np.frombuffer(data, np.float16, offset=every.head)
    if np.isfinite(flat).all():
        task.store.hold(Adapter.of(flat, task.round))
    metrics = {keys.EXAMPLES: len(items), "loss": loss, **(counts + trained).metrics()}
    return RecordDict({keys.ARRAYS: payload(data), keys.METRICS: MetricRecord(metrics)})
