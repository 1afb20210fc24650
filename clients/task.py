"""What every kind of device work begins with: the settings, the models and the data of one device in one
round.

A process serves many devices (LocalGrid, a Ray actor), so pair, world and models are kept per process; what
belongs to a device alone lives in Flower's `context.state`. Torch runs on one thread: the order of its sums,
and with it every byte a device sends, is then the same in every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from torch import nn

from cdc_flower.config import Config, PairConfig, parse
from cdc_flower.data.stream import generator
from cdc_flower.data.world import World, load_world, open_picture
from cdc_flower.models import adapters, flops, vlm
from cdc_flower.models.compress import device_model
from cdc_flower.models.pair import Pair, load_pair
from cdc_flower.wire import keys

BATCH = 32  # samples in a forward pass
_HELD = "held"  # in context.state: the device's adapter


@dataclass(frozen=True)
class Task:
    """One device's work in one round."""

    config: Config
    pair: Pair
    world: World
    device: int
    round: int
    order: ConfigRecord  # what the server asks for

    @property
    def rows(self) -> np.ndarray:
        """(samples,) positions in `world.train` that the device meets in this round."""
        return self.world.streams[self.device][self.round - 1]

    def rng(self, purpose: str) -> np.random.Generator:
        """The device's own generator for a purpose in this round."""
        return generator(self.config.run.seed, f"{purpose}/{self.round}", self.device)


@lru_cache(maxsize=8)
def _config(items: tuple[tuple[str, Any], ...]) -> Config:
    return parse(dict(items))


def task(message: Message, context: Context) -> Task:
    """Settings from the run config, the device from the node config, the round from the message."""
    torch.set_num_threads(1)
    config = _config(tuple(sorted(context.run_config.items())))
    pair = load_pair(config.pair, config.data.name)
    order = message.content.config_records[keys.CONFIG]
    return Task(
        config,
        pair,
        load_world(config, pair),
        int(context.node_config[keys.DEVICE]),
        int(order[keys.ROUND]),
        order,
    )


@dataclass(frozen=True)
class Resident:
    """The compressed student that all devices of a process share; a device writes its adapter before it
    works.
    """

    model: nn.Module
    layout: adapters.Layout
    initial: np.ndarray  # (P,) float32, version 0


@lru_cache(maxsize=4)
def resident(pair: Pair, config: PairConfig) -> Resident:
    model = device_model(pair, config)
    return Resident(model, adapters.layout(model), adapters.read(model))


def held(state: RecordDict, initial: np.ndarray) -> tuple[np.ndarray, int]:
    """The adapter (P,) float32 a device holds and its version; version 0 until it got an update."""
    if _HELD not in state.array_records:
        return initial, 0
    return state.array_records[_HELD][keys.PAYLOAD].numpy(), int(
        state.config_records[f"{_HELD}-version"][keys.VERSION]
    )


def hold(state: RecordDict, flat: np.ndarray, version: int) -> None:
    """Keep an adapter and its version for the next round."""
    state[_HELD] = ArrayRecord({keys.PAYLOAD: Array(np.ascontiguousarray(flat, np.float32))})
    state[f"{_HELD}-version"] = ConfigRecord({keys.VERSION: version})


def pictures(task: Task, rows: np.ndarray) -> np.ndarray:
    """Vision tokens (B, N, D) float16 of the pictures of train rows."""
    image_rows = task.world.train["image_row"].to_numpy()[rows]
    return task.world.train_tokens[image_rows]


def as_read(task: Task, row: int) -> np.ndarray:
    """Pixels (side, side, 3) uint8 of the picture of a train row, as the tower's processor makes them."""
    data = task.world.pack.train_images[str(task.world.train["image_id"].iat[row])]
    return vlm.as_read(task.pair.processor, [open_picture(data)])[0]


def questions(task: Task, rows: np.ndarray) -> list[list[int]]:
    """Token ids of the questions of train rows."""
    column = task.world.train["question"].to_numpy()
    return [task.pair.text.question_ids(str(column[i])) for i in rows]


def answer(
    task: Task, model: nn.Module, tokens: np.ndarray, asked: Sequence[list[int]]
) -> tuple[vlm.Answers, int]:
    """Answer B questions in batches of `BATCH`; also the FLOPs it took."""
    found, spent = [], 0
    for start in range(0, len(asked), BATCH):
        part = slice(start, start + BATCH)
        inputs = vlm.collate(task.pair.text, tokens[part], asked[part])
        found.append(vlm.answer(model, task.pair.text, inputs, task.pair.max_answer_tokens))
        spent += pass_flops(task, model, asked[part], [len(ids) for ids in found[-1].ids])
    joined = {name: [x for a in found for x in getattr(a, name)] for name in ("ids", "texts")}
    numbers = {
        name: np.concatenate([getattr(a, name) for a in found])
        for name in ("entropy", "margin", "log_prob", "confidence")
    }
    return vlm.Answers(**joined, **numbers), spent


def pass_flops(task: Task, model: nn.Module, asked: Sequence[list[int]], answered: Sequence[int]) -> int:
    """FLOPs of reading complete pictures and questions and of so many answer tokens each."""
    n, prefix = task.pair.n_tokens, len(task.pair.text.prefix_ids)
    lengths = [prefix + n + len(q) + a for q, a in zip(asked, answered, strict=True)]
    context = sum(lengths) // max(1, len(lengths))
    return flops.forward(model, sum(lengths), n * len(lengths), context, sum(a + 1 for a in answered))
