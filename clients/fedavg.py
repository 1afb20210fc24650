"""Device work of the FedAvg family: answer the stream, then train on it.

The device keeps the rows it has met (as many as `fedavg.memory`) and trains on them and this round's for some
epochs with AdamW, either the adapter or all weights, towards true answers or towards its own where it is
confident. FedProx's term `mu / 2 ||w - w_global||^2` (arXiv 1812.06127) is added when the message says
`proximal-mu`. Training runs on the float model whose values are those of the compressed student, so the
weights that are averaged are weights that can be deployed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from torch import nn
from torch.nn import functional as F

from cdc_flower.config import PairConfig
from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import full_model, twin_model
from cdc_flower.wire import keys
from clients import evaluate
from clients.inference import Ask, Work, answer
from clients.store import Adapter
from clients.task import Task, decoded, pass_flops, pictures, question_length, questions

Lessons = tuple[np.ndarray, list[list[int]], int, int]
"""Positions of rows worth learning (indices into the memory), their answers as ids, and the FLOPs and decoded
tokens spent on them."""


@lru_cache(maxsize=2)
def trainee(shared: Shared, config: PairConfig, full: bool) -> nn.Module:
    """The model that devices of this process train, one after another."""
    return adapters.train_merged((full_model if full else twin_model)(shared, config))


@lru_cache(maxsize=1)
def weights(data: bytes) -> Adapter:
    """The weights (P,) of a message, once for all devices of this process that were sent the same."""
    return Adapter.of(np.load(io.BytesIO(data), allow_pickle=False).astype(np.float32), 0)


def memory(task: Task) -> np.ndarray:
    """Train rows the device trains on: the last `fedavg.memory` rows of earlier rounds, then this round's."""
    limit = task.config.fedavg.memory
    past = np.concatenate([np.zeros(0, np.int64), *task.world.streams[task.device][: task.round - 1]])
    return np.concatenate([past[len(past) - min(limit, len(past)) :], task.rows])


def true_answers(task: Task, model: nn.Module, rows: np.ndarray) -> Lessons:
    """Every row with its label."""
    labels = task.world.train["answer"].to_numpy()[rows]
    return np.arange(len(rows)), [task.shared.text.answer_ids(str(a)) for a in labels], 0, 0


def own_answers(task: Task, model: nn.Module, rows: np.ndarray) -> Lessons:
    """The rows that the model answers with at least `fedavg.confidence`, with those answers. No label is
    read.
    """
    asked, length = questions(task, rows), question_length(task.shared, task.world)
    answers = answer(model, task.shared, length, pictures(task, rows), asked)
    spent = pass_flops(task, model, asked, [len(ids) for ids in answers.ids])
    sure = np.flatnonzero(answers.confidence >= task.config.fedavg.confidence)
    return sure, [answers.ids[i] for i in sure], spent, decoded(task, answers)


LESSONS: dict[str, Callable[[Task, nn.Module, np.ndarray], Lessons]] = {
    "true": true_answers,
    "own": own_answers,
}
"""`labels` in the message -> what to learn."""


def fit(
    task: Task,
    model: nn.Module,
    tokens: Sequence[np.ndarray],
    asked: Sequence[list[int]],
    answers: Sequence[list[int]],
    lr: float,
    mu: float,
) -> tuple[float, int]:
    """Train in place.

    Args:
        tokens: B arrays (n_i, D) float16.
        asked, answers: B id lists each.
        lr: of AdamW, without weight decay.
        mu: of the proximal term; 0 for FedAvg.

    Returns:
        mean loss of the answers over the last epoch (0 without samples), FLOPs of the forward passes.
    """
    local, rng, params = task.config.fedavg, task.rng("local training"), adapters.trainable(model)
    start = [p.detach().clone() for p in params]
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=0.0)
    losses: list[float] = []
    for _ in range(local.epochs):
        losses, order = [], rng.permutation(len(asked))
        for at in range(0, len(order), local.batch):
            some = order[at : at + local.batch]
            inputs = vlm.collate(
                task.shared.text,
                [tokens[i] for i in some],
                [asked[i] for i in some],
                [answers[i] for i in some],
            )
            assert inputs.answer_ids is not None
            logits = vlm.forward(model, task.shared.text, inputs).logits
            loss = F.cross_entropy(logits.flatten(0, 1), inputs.answer_ids.flatten(), ignore_index=-100)
            losses.append(loss.item())
            if mu:
                pairs = zip(params, start, strict=True)
                loss = loss + mu / 2 * torch.stack([(p - s).square().sum() for p, s in pairs]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    spent = local.epochs * pass_flops(task, model, asked, [len(ids) + 1 for ids in answers])
    return float(np.mean(losses)) if losses else 0.0, spent


def work(task: Task, message: Message, context: Context) -> Work:
    """One round of FedAvg on a device; the reply carries the trained weights (P,) as float16."""
    full, local = bool(task.order[keys.FULL]), task.config.fedavg
    model = trainee(task.shared, task.config.pair, full)
    received = weights(message.content.array_records[keys.ARRAYS][keys.PAYLOAD].data)
    asked = questions(task, task.rows)
    answers = yield Ask(task, model, received, pictures(task, task.rows), asked)
    forward = pass_flops(task, model, asked, [len(ids) for ids in answers.ids])
    adapters.write(model, received.flat)  # another device may have trained meanwhile
    evaluate.record(context.state, task.world, task.rows, answers.texts, task.round)
    rows = memory(task)
    chosen, targets, spent, generated = LESSONS[str(task.order[keys.LABELS])](task, model, rows)
    lr = local.lr_full if full else local.lr
    mu = float(task.order.get(keys.PROXIMAL_MU, 0.0))
    rows = rows[chosen]
    loss, trained = fit(task, model, pictures(task, rows), questions(task, rows), targets, lr, mu)
    with np.errstate(over="ignore"):
        flat = adapters.read(model).astype(np.float16)
    return RecordDict(
        {
            keys.ARRAYS: ArrayRecord({keys.PAYLOAD: Array(flat)}),
            keys.METRICS: MetricRecord(
                {
                    keys.EXAMPLES: len(chosen),
                    "loss": loss,
                    keys.DECODED: decoded(task, answers) + generated,
                    keys.FORWARD: forward + spent + trained,
                    keys.BACKWARD: (2 if full else 1) * trained,
                }
            ),
        }
    )
