"""Device work of the FedAvg family: answer the stream, then train on it.

The device trains on this round's items and on as many of earlier rounds as the server says, for some epochs
with AdamW, either the adapter or all weights, towards true answers or towards its own where it is confident.
FedProx's term `mu / 2 ||w - w_global||^2` (arXiv 1812.06127) is added when the message says `proximal-mu`.
Training runs on the float model whose values are those of the compressed student, so the weights that are
averaged are weights that can be deployed.

The order (ConfigRecord) holds `epochs`, `batch`, `lr`, `memory` (items of earlier rounds), `confidence`
(own answers below it do not teach), `labels` ("true" or "own"), `full` (all weights), `proximal-mu`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from torch import nn
from torch.nn import functional as F

from cdc_flower.data.features import Grid
from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.wire import keys
from cdc_flower.wire.arrays import read_flat
from cdc_flower.wire.counts import Counts
from clients.counts import answering, passes
from clients.inference import Ask, Work, answer
from clients.store import Adapter
from clients.task import Task

Taught = tuple[np.ndarray, list[list[int]], Counts]
"""Places of the items worth learning from, their answers as ids, and what finding them took."""


MOST = {"epochs": 1000, "batch": 2**16, "lr": 10**6, "memory": 10**6}
"""What an order may ask for: no more than the settings allow."""


def check(order: Mapping[str, Any], limits: Mapping[str, int] = MOST) -> None:
    """Refuse an order that would keep a device busy for longer than any run does.

    Raises:
        ValueError: names what is asked for and what is allowed.
    """
    for key, most in limits.items():
        asked = order.get(key)
        if not isinstance(asked, int | float) or not 0 <= asked <= most:
            raise ValueError(f"order: {key} = {asked!r}; allowed: 0..{most}")


@kept(2)
def trainee(shared: Shared, config: PairConfig, full: bool) -> nn.Module:
    """The model that devices of this process train, one after another."""
    return adapters.train_merged((full_model if full else twin_model)(shared, config))


@kept(1)
def weights(data: bytes, size: int) -> Adapter:
    """The weights (size,) of a message, once for all devices of this process that were sent the same.

    Raises:
        FrameError: another array, or one that is not finite.
    """
    return Adapter.of(read_flat(data, size).astype(np.float32), 0)


def memory(task: Task) -> np.ndarray:
    """Items the device trains on: the last `memory` ones of earlier rounds, then this round's."""
    limit = int(task.order["memory"])
    past = np.concatenate([np.zeros(0, np.int64), *map(task.source.items, range(1, task.round))])
    return np.concatenate([past[len(past) - min(limit, len(past)) :], task.items])


def true_answers(task: Task, model: nn.Module, items: np.ndarray) -> Taught:
    """Every item with its label."""
    return np.arange(len(items)), task.labels(items), Counts()


def own_answers(task: Task, model: nn.Module, items: np.ndarray) -> Taught:
    """The items that the model answers with at least `confidence`, with those answers. No label is read."""
    tokens, asked = task.tokens(items), task.questions(items)
    grids = task.grids(items)
    answers = answer(model, task.shared, task.source.longest, tokens, asked, grids=grids)
    sure = np.flatnonzero(answers.confidence >= float(task.order["confidence"]))
    return sure, [answers.ids[i] for i in sure], answering(task, tokens, asked, answers.ids, grids)


TEACHERS: dict[str, Callable[[Task, nn.Module, np.ndarray], Taught]] = {
    keys.TRUE: true_answers,
    keys.OWN: own_answers,
}
"""`labels` in the message -> what to learn."""


def fit(
    task: Task,
    model: nn.Module,
    tokens: Sequence[np.ndarray],
    asked: Sequence[list[int]],
    answers: Sequence[list[int]],
    grids: Sequence[Grid],
) -> tuple[float, Counts]:
    """Train in place, with AdamW without weight decay.

    Args:
        task: whose order says how long, how fast, and how near to the weights it began with.
        model: whose trainable weights learn.
        tokens: B arrays (n_i, D) float16.
        asked, answers: B id lists each.
        grids: of the B pictures.

    Returns:
        mean loss of the answers over the last epoch (0 without samples), and what was computed.
    """
    epochs, size, lr = int(task.order["epochs"]), int(task.order["batch"]), float(task.order["lr"])
    mu = float(task.order.get(keys.PROXIMAL_MU, 0.0))
    rng, params = task.rng("local training"), adapters.trainable(model)
    device = params[0].device
    start = [p.detach().clone() for p in params]
    own, most = task.order[keys.LABELS] == keys.OWN, task.shared.max_answer_tokens
    ended = [not own or len(ids) < most for ids in answers]  # one that was cut is taught without an end
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=0.0)
    losses: list[float] = []
    model.train()  # what `adapters.train_merged` makes cheaper
    for _ in range(epochs):
        losses, order = [], rng.permutation(len(asked))
        for at in range(0, len(order), size):
            some = order[at : at + size]
            seen, read, told, lie = ([of[i] for i in some] for of in (tokens, asked, answers, grids))
            ends = [ended[i] for i in some]
            inputs = vlm.collate(task.shared.text, seen, read, told, grids=lie, ended=ends).to(device)
            assert inputs.answer_ids is not None
            logits = vlm.forward(model, inputs).logits
            loss = F.cross_entropy(logits.flatten(0, 1), inputs.answer_ids.flatten(), ignore_index=-100)
            losses.append(loss.item())
            if mu:
                pairs = zip(params, start, strict=True)
                loss = loss + mu / 2 * torch.stack([(p - s).square().sum() for p, s in pairs]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    read = passes(task, tokens, asked, [len(ids) + 1 for ids in answers], grids) * epochs
    back = Counts(trained=(2 if task.order[keys.FULL] else 1) * read.positions)
    return float(np.mean(losses)) if losses else 0.0, read + back


@dataclass(frozen=True, eq=False)
class Learned:
    """What a round's training came to.

    Attributes:
        flat: (P,) float32, the trained weights.
        examples: that they learned from.
        loss: see `fit`.
        counts: of looking for answers and of training.
    """

    flat: np.ndarray
    examples: int
    loss: float
    counts: Counts


def learned(task: Task, model: nn.Module, start: np.ndarray) -> Learned:
    """Train from the weights `start` (P,) on what the device remembers."""
    adapters.write(model, start)  # another device may have trained meanwhile
    items = memory(task)
    chosen, targets, sought = TEACHERS[str(task.order[keys.LABELS])](task, model, items)
    items = items[chosen]
    loss, trained = fit(task, model, task.tokens(items), task.questions(items), targets, task.grids(items))
    return Learned(adapters.read(model), len(chosen), loss, sought + trained)


def work(task: Task) -> Work:
    """One round of FedAvg on a device; the reply carries the trained weights (P,) as float16."""
    check(task.order)
    model = trainee(task.shared, task.config.pair, bool(task.order[keys.FULL]))
    size = sum(p.numel() for p in adapters.trainable(model))
    received = weights(task.sent.array_records[keys.ARRAYS][keys.PAYLOAD].data, size)
    tokens, asked = task.tokens(task.items), task.questions(task.items)
    grids = task.grids(task.items)
    answers = yield Ask(task, model, received, tokens, asked, grids=grids)
    task.store.say(task.round, answers.texts)
    now = learned(task, model, received.flat)
    with np.errstate(over="ignore"):
        flat = now.flat.astype(np.float16)
    counts = answering(task, tokens, asked, answers.ids, grids) + now.counts
    metrics = {keys.EXAMPLES: now.examples, "loss": now.loss, **counts.metrics()}
    return RecordDict(
        {keys.ARRAYS: ArrayRecord({keys.PAYLOAD: Array(flat)}), keys.METRICS: MetricRecord(metrics)}
    )
