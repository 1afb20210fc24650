"""What every kind of device work begins with: the settings, the models and the data of one device in one
round.

A process serves many devices (LocalGrid, a Ray actor), so pair, world and models are kept per process; what
belongs to a device alone lives in Flower's `context.state`. Torch runs on one thread: the order of its sums,
and with it every byte a device sends, is then the same in every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message
from torch import nn

from cdc_flower.config import Config, PairConfig, parse
from cdc_flower.data.features import open_picture
from cdc_flower.data.world import World, load_world
from cdc_flower.draws import generator
from cdc_flower.fleet.cost.charges import charges
from cdc_flower.models import adapters, flops, vlm
from cdc_flower.models.shared import Shared, load_shared
from cdc_flower.models.student import device_model
from cdc_flower.wire import keys
from clients.store import Adapter


@dataclass(frozen=True)
class Task:
    """One device's work in one round."""

    config: Config
    shared: Shared
    world: World
    device: int
    round: int
    order: ConfigRecord  # what the server asks for

    @property
    def rows(self) -> np.ndarray:
        """(samples,) positions in `world.train` that the device meets in this round."""
        return self.world.streams[self.device][self.round - 1]

    @property
    def models(self) -> PairConfig:
        """The settings of the models, with the compression that this device runs."""
        fixed = self.config.pair
        if fixed.compression != "auto":
            return fixed
        return replace(fixed, compression=_compressions(self.config, self.shared, self.world)[self.device])

    def rng(self, purpose: str) -> np.random.Generator:
        """The device's own generator for a purpose in this round."""
        return generator(self.config.run.seed, f"{purpose}/{self.round}", self.device)


@lru_cache(maxsize=4)
def _compressions(config: Config, shared: Shared, world: World) -> tuple[str, ...]:
    return charges(config, shared, world).compression


@lru_cache(maxsize=8)
def _config(items: tuple[tuple[str, Any], ...]) -> Config:
    return parse(dict(items))


def task(message: Message, context: Context) -> Task:
    """Settings from the run config, the device from the node config, the round from the message."""
    torch.set_num_threads(1)
    config = _config(tuple(sorted(context.run_config.items())))
    shared = load_shared(config.pair, config.data.name)
    order = message.content.config_records[keys.CONFIG]
    return Task(
        config,
        shared,
        load_world(config, shared),
        int(context.node_config[keys.DEVICE]),
        int(order[keys.ROUND]),
        order,
    )


@dataclass(frozen=True, eq=False)
class Resident:
    """The compressed student that all devices of a process share; an adapter is written before it works."""

    model: nn.Module
    layout: adapters.Layout
    initial: Adapter  # version 0


@lru_cache(maxsize=4)
def resident(shared: Shared, config: PairConfig) -> Resident:
    model = device_model(shared, config)
    return Resident(model, adapters.layout(model), Adapter.of(adapters.read(model), 0))


def pictures(task: Task, rows: np.ndarray) -> list[np.ndarray]:
    """Vision tokens, B arrays (n_i, D) float16, of the pictures of train rows."""
    return [task.world.train_tokens[i] for i in _asked(task.shared, task.world)[0][rows]]


def as_read(task: Task, row: int) -> np.ndarray:
    """Pixels (side, side, 3) uint8 of the picture of a train row, as the tower's processor makes them."""
    data = task.world.pack.train_images[str(task.world.train["image_id"].iat[row])]
    return vlm.as_read(task.shared.processor, [open_picture(data)])[0]


def questions(task: Task, rows: np.ndarray) -> list[list[int]]:
    """Token ids of the questions of train rows."""
    of_row = _asked(task.shared, task.world)[1]
    return [list(of_row[row]) for row in rows.tolist()]


@lru_cache(maxsize=4)
def _asked(shared: Shared, world: World) -> tuple[np.ndarray, list[list[int]]]:
    """Image row and question ids of every train row, as arrays: looking up a few rows of a table takes
    longer than coding them. Rows with one question share one list.
    """
    asked = world.train["question"].astype(str)
    ids = {question: shared.text.question_ids(question) for question in asked.unique()}
    return world.train["image_row"].to_numpy(), [ids[question] for question in asked]


@lru_cache(maxsize=4)
def question_length(shared: Shared, world: World) -> int:
    """Token ids of the longest question of `world.train`: what every batch of a run is padded to."""
    return max(map(len, _asked(shared, world)[1]))


def decoded(task: Task, answers: vlm.Answers) -> int:
    """Answer tokens generated, end tokens included; an answer that was cut has none."""
    return sum(min(len(ids) + 1, task.shared.max_answer_tokens) for ids in answers.ids)


shape = lru_cache(maxsize=8)(flops.shape)


def pass_flops(task: Task, model: nn.Module, asked: Sequence[list[int]], answered: Sequence[int]) -> int:
    """FLOPs of reading complete pictures and questions and of so many answer tokens each."""
    n, prefix = task.shared.n_tokens, len(task.shared.text.prefix_ids)
    lengths = [prefix + n + len(q) + a for q, a in zip(asked, answered, strict=True)]
    context = sum(lengths) // max(1, len(lengths))
    return shape(model).forward(sum(lengths), n * len(lengths), context, sum(a + 1 for a in answered))
