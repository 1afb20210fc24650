"""Held-out accuracy by domain, of the student with some adapter or of the teacher; for the experimenter's
eyes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from torch import nn

from cdc_flower.data.world import World
from cdc_flower.models import adapters, vlm
from cdc_flower.models.shared import Shared

BATCH = 128


@contextmanager
def wearing(model: nn.Module, flat: np.ndarray) -> Iterator[nn.Module]:
    """The model with another adapter (P,) float32 for a while; its own comes back bit for bit."""
    own = adapters.read(model)
    adapters.write(model, flat)
    try:
        yield model
    finally:
        adapters.write(model, own)


def accuracy(
    model: nn.Module, shared: Shared, world: World, progress: Callable[[str, int, int], None] | None = None
) -> dict[str, float]:
    """Domain -> mean worth of the greedy answers to the test items, 0..1.

    Answers are compared as text, by the task that judges the stream.
    """
    frame, right = world.test, np.zeros(len(world.test))
    device = next(model.parameters()).device
    mode = model.training
    model.eval()
    for start in range(0, len(frame), BATCH):
        part = frame.iloc[start : start + BATCH]
        rows = part["image_row"].tolist()
        inputs = vlm.collate(
            shared.text,
            [world.test_tokens[i] for i in rows],
            [shared.text.question_ids(str(q)) for q in part["question"]],
            grids=[world.test_tokens.grid(i) for i in rows],
        )
        said = vlm.answer(model, shared.text, inputs.to(device), shared.max_answer_tokens).texts
        true = part["answer"].astype(str)
        right[start : start + BATCH] = [world.worth(a, b) for a, b in zip(said, true, strict=True)]
        if progress is not None:
            progress("held-out accuracy", min(start + BATCH, len(frame)), len(frame))
    model.train(mode)
    domain = frame["drift_domain"].to_numpy()
    return {str(d): float(right[domain == d].mean()) for d in sorted(set(domain))}


def items(world: World) -> dict[str, int]:
    """Domain -> number of test items."""
    return {str(d): int(n) for d, n in world.test["drift_domain"].value_counts().sort_index().items()}
