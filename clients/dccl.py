"""Device work of `dccl`: answer with the cloud's adapter and a patch of one's own, then train the patch.

The patch is a small vector on a frozen basis (`cdc_flower.models.patches`). It learns from true labels, by
AdamW on the mean loss of the answers, and goes up in float16; so the cloud holds what the device holds, and
the device keeps what it sent.
"""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from torch.nn import functional as F

from cdc_flower.models import adapters, vlm
from cdc_flower.models.patches import Basis
from cdc_flower.models.shared import Shared
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.wire import keys
from cdc_flower.wire.counts import Counts
from clients.counts import answering, passes
from clients.fedavg import MOST, check, memory, trainee, weights
from clients.inference import Ask, Work
from clients.store import Adapter, Store
from clients.task import Task

PATCH = "patch"  # a record of the state: z in float16, under keys.PAYLOAD


@kept(2)
def basis(shared: Shared, config: PairConfig, size: int) -> Basis:
    """The basis that all devices and the cloud have."""
    return Basis.of(adapters.layout(trainee(shared, config, False)), size)


def patch(store: Store, size: int) -> NDArray[np.float32]:
    """The device's own z (k,): zero before it learned, or where its state does not say."""
    record = store.state.config_records.get(PATCH)
    data = bytes(record[keys.PAYLOAD]) if record else b""  # type: ignore[arg-type]
    kept = np.frombuffer(data, np.float16) if len(data) == 2 * size else np.zeros(size)
    return kept.astype(np.float32)


def fit(
    task: Task, flat: NDArray[np.float32], theta: Basis, z: NDArray[np.float32], items: np.ndarray
) -> tuple[NDArray[np.float32], float, Counts]:
    """Train z (k,) beside an adapter `flat` (P,) that stays: z, the last mean loss, and what it took."""
    model = trainee(task.shared, task.config.pair, False)
    epochs, size = int(task.order["epochs"]), int(task.order["batch"])
    tokens, asked, labels = task.tokens(items), task.questions(items), task.labels(items)
    grids, rng, losses = task.grids(items), task.rng("local training"), list[float]()
    own = torch.nn.Parameter(torch.from_numpy(z.copy()))
    optimizer = torch.optim.AdamW([own], lr=float(task.order["lr"]), weight_decay=0.0)
    params = adapters.trainable(model)
    model.train()
    for _ in range(epochs):
        losses, order = [], rng.permutation(len(items))
        for at in range(0, len(order), size):
            some = order[at : at + size]
            adapters.write(model, theta.patched(flat, own.detach().numpy()))
            seen, read, told, lie = ([of[i] for i in some] for of in (tokens, asked, labels, grids))
            inputs = vlm.collate(task.shared.text, seen, read, told, grids=lie).to(params[0].device)
            assert inputs.answer_ids is not None
            logits = vlm.forward(model, inputs).logits
            loss = F.cross_entropy(logits.flatten(0, 1), inputs.answer_ids.flatten(), ignore_index=-100)
            losses.append(loss.item())
            found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)]).cpu().numpy()
            own.grad = torch.from_numpy(theta.gradient(found))
            optimizer.step()
    model.eval()
    read = passes(task, tokens, asked, [len(ids) + 1 for ids in labels], grids) * epochs
    back = Counts(trained=read.positions)
    return own.detach().numpy(), float(np.mean(losses)) if losses else 0.0, read + back


def work(task: Task) -> Work:
    """One round on a device; the reply carries z (k,) float16."""
    check(task.order, {**MOST, "patch": 10**6})
    model, size = trainee(task.shared, task.config.pair, False), int(task.order["patch"])
    theta, z = basis(task.shared, task.config.pair, size), patch(task.store, size)
    sent = task.sent.array_records[keys.ARRAYS][keys.PAYLOAD].data
    received = weights(sent, sum(p.numel() for p in adapters.trainable(model)))
    worn = Adapter.of(theta.patched(received.flat, z), 0)
    tokens, asked, grids = task.tokens(task.items), task.questions(task.items), task.grids(task.items)
    answers = yield Ask(task, model, worn, tokens, asked, grids=grids)
    task.store.say(task.round, answers.texts)
    items = memory(task)
    z, loss, trained = fit(task, received.flat, theta, z, items)
    with np.errstate(over="ignore"):
        up = z.astype(np.float16)
    if np.isfinite(up).all():
        task.store.state[PATCH] = ConfigRecord({keys.PAYLOAD: up.tobytes()})
    counts = answering(task, tokens, asked, answers.ids, grids) + trained
    metrics = {keys.EXAMPLES: len(items), "loss": loss, **counts.metrics()}
    return RecordDict(
        {keys.ARRAYS: ArrayRecord({keys.PAYLOAD: Array(up)}), keys.METRICS: MetricRecord(metrics)}
    )
