"""Training a portion of the adapter on a device that keeps its own: what learns, and from which samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cdc_flower.models import adapters
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model
from cdc_flower.session import kept
from cdc_flower.stages import PairConfig
from cdc_flower.wire.counts import Counts
from clients.counts import answering
from clients.fedavg import fit, memory, trainee
from clients.inference import Ask, Work
from clients.local import reply, untrained
from clients.store import Adapter
from clients.task import Task

PORTIONS: Mapping[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "head": lambda name: adapters.HEAD in name,
}
"""Name -> whether a tensor of that name belongs to the portion."""


@dataclass(frozen=True, eq=False)
class Portion:
    """The model that devices of this process train, of which a portion alone learns.

    Attributes:
        places: (S,) where its weights stand in the flat adapter (P,), rising.
    """

    model: nn.Module
    places: NDArray[np.int64]


@kept(4)
def portion(shared: Shared, config: PairConfig, name: str) -> Portion:
    """A portion by its name; behind what is frozen no gradient is computed."""
    model, takes = twin_model(shared, config), PORTIONS[name]
    places = adapters.layout(model).places(lambda of, shape: takes(of))
    for of, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and takes(of))
    return Portion(adapters.train_merged(model), places)


def kind(question: str) -> str:
    """What kind of question it is: its first two words, which is what a device can know of it."""
    return " ".join(question.split()[:2])


def first(task: Task, most: int) -> np.ndarray:
    """The first samples of each kind of question that the device met, at most so many of a kind, and no more
    than it remembers; 0 = all that it remembers.
    """
    remembered = memory(task)
    if not most:
        return remembered
    met, found = dict[str, int](), []
    for item in np.concatenate([*map(task.source.items, range(1, task.round)), task.items]).tolist():
        of = kind(task.source.question(item))
        met[of] = met.get(of, 0) + 1
        if met[of] <= most:
            found.append(item)
    return np.array(found[: len(remembered)], np.int64)


def tuned(task: Task, name: str, most: int) -> Work:
    """One round: answer with the device's own adapter, then train a portion of it on labels and keep it.

    Args:
        task: whose order says what `clients.fedavg.fit` needs.
        name: of the portion.
        most: labelled samples of a kind of question, 0 = all that the device remembers.
    """
    pair = task.shared, task.config.pair
    whole, part = trainee(*pair, False), portion(*pair, name)
    held = task.store.held(untrained(*pair))
    tokens, asked, grids = task.tokens(task.items), task.questions(task.items), task.grids(task.items)
    answers = yield Ask(task, whole, held, tokens, asked, grids=grids)
    task.store.say(task.round, answers.texts)
    items = first(task, most)
    labels = task.labels(items)
    adapters.write(whole, held.flat)
    for own, other in zip(part.model.parameters(), whole.parameters(), strict=True):
        own.data.copy_(other.data)  # another device may have trained meanwhile
    loss, trained = fit(
        task, part.model, task.tokens(items), task.questions(items), labels, task.grids(items)
    )
    if name != "all":  # gradients go back from answers to the head, and no further
        steps = sum(len(ids) + 1 for ids in labels) * int(task.order["epochs"])
        trained = replace(trained, trained=steps)
    flat = held.flat.copy()
    flat[part.places] = adapters.read(part.model)
    task.store.hold(Adapter.of(flat, task.round))
    counts: Counts = answering(task, tokens, asked, answers.ids, grids) + trained
    return reply(len(items), loss, counts)
