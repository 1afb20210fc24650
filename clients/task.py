"""What every kind of device work begins with: one device's settings, models, data and memory in one round.

A process serves many devices (LocalGrid, a Ray actor), so models and opened files are kept for the process
(`cdc_flower.session`); what belongs to a device alone lies in its `Store`. No teacher is opened here, no
label and no test item. Torch runs on one thread, unless the settings say otherwise: the order of its sums,
and with it every byte a device sends, is then the same in every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from torch import nn

from cdc_flower.config import Config, parse_stages
from cdc_flower.data.features import Grid, open_picture
from cdc_flower.data.source import Source, source
from cdc_flower.draws import generator
from cdc_flower.models import adapters, placement
from cdc_flower.models.shared import Shared, load_shared
from cdc_flower.models.student import device_model
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.wire import keys
from clients.store import Adapter, Store


@dataclass(frozen=True)
class Task:
    """One device's work in one round.

    Attributes:
        config: of the run.
        shared: what this device has of the models beside the student.
        source: what it reads.
        device: its number.
        round: counted from 1.
        sent: all records of the message.
        store: what the device keeps.
        secret: of the device, which no server knows; b"" in a simulation.
    """

    config: Config
    shared: Shared
    source: Source
    device: int
    round: int
    sent: RecordDict
    store: Store
    secret: bytes = b""

    @classmethod
    def of(cls, message: Message, context: Context) -> Task:
        """Settings from the run config, the device from the node config, the round from the message."""
        config = _config(tuple(sorted(context.run_config.items())))
        torch.set_num_threads(config.run.threads)
        placement.choose(config.run.device)
        shared = load_shared(config.pair, config.data.name, config.data.frames)
        device = int(context.node_config[keys.DEVICE])
        round = int(message.content.config_records[keys.CONFIG][keys.ROUND])  # type: ignore[arg-type]
        own = source(config, shared, device)
        return cls(config, shared, own, device, round, message.content, Store.of(context))

    @property
    def order(self) -> Mapping[str, Any]:
        """What the server asks for."""
        return self.sent.config_records[keys.CONFIG]

    @property
    def items(self) -> np.ndarray:
        """(samples,) int64: what the device is asked in this round."""
        return self.source.items(self.round)

    @property
    def models(self) -> PairConfig:
        """The settings of the models, with the compression that this device runs."""
        own = self.source.compression
        return replace(self.config.pair, compression=own) if own else self.config.pair

    def rng(self, purpose: str) -> np.random.Generator:
        """The device's own generator for a purpose in this round."""
        return generator(self.config.run.seed, f"{purpose}/{self.round}", self.device)

    def private_rng(self, purpose: str, content: bytes) -> np.random.Generator:
        """The device's own generator for what it has, in every round the same; who has not its secret cannot
        draw from it.
        """
        key = hashlib.blake2b(content, key=self.secret, digest_size=32).hexdigest()
        return generator(self.config.run.seed, f"{purpose}/{key}", self.device)

    def tokens(self, items: Iterable[int]) -> list[np.ndarray]:
        """Vision tokens (n_i, D) float16 of each item."""
        return [self.source.tokens(i) for i in items]

    def grids(self, items: Iterable[int]) -> list[Grid]:
        """How the vision tokens of each item lie."""
        return [self.source.grid(int(i)) for i in items]

    def questions(self, items: Iterable[int]) -> list[list[int]]:
        """Token ids of each item's question."""
        ids = _question_ids(self.shared)
        found = []
        for words in map(self.source.question, items):
            if words not in ids:
                ids[words] = self.shared.text.question_ids(words)
            found.append(list(ids[words]))
        return found

    def labels(self, items: Iterable[int]) -> list[list[int]]:
        """Token ids of each item's true answer.

        Raises:
            PermissionError: the server did not say that this method's devices learn from labels.
        """
        if self.order.get(keys.LABELS) != keys.TRUE:
            raise PermissionError("labels are for methods that say that their devices learn from them")
        return [self.shared.text.answer_ids(self.source.label(i)) for i in items]

    def picture(self, item: int) -> np.ndarray:
        """Pixels (H, W, 3) uint8 of an item's picture, as it is sent."""
        return self.shared.to_send(open_picture(self.source.picture(item)), self.source.grid(int(item)))


@kept(8)
def _config(items: tuple[tuple[str, Any], ...]) -> Config:
    return parse_stages(dict(items))


@kept(4)
def _question_ids(shared: Shared) -> dict[str, list[int]]:
    """Question -> its token ids, filled as they are asked: looking them up is cheaper than making them."""
    return {}


@dataclass(frozen=True, eq=False)
class Resident:
    """The compressed student that all devices of a process share; an adapter is written before it works."""

    model: nn.Module
    layout: adapters.Layout
    initial: Adapter  # version 0


@kept(4)
def resident(shared: Shared, config: PairConfig) -> Resident:
    """The student of this process."""
    model = device_model(shared, config)
    return Resident(model, adapters.layout(model), Adapter.of(adapters.read(model), 0))
