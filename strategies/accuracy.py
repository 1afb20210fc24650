"""Held-out accuracy by domain, of the student with some adapter or of the teacher; for the experimenter's
eyes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
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
    """Domain -> share of test items whose greedy answer is the label, 0..1."""
    frame, right = world.test, np.zeros(len(world.test), bool)
    device = next(model.parameters()).device
    mode = model.training
    model.eval()
    for start in range(0, len(frame), BATCH):
        part = frame.iloc[start : start + BATCH]
        tokens = np.stack([world.test_tokens[i] for i in part["image_row"]])
        inputs = vlm.collate(
            shared.text,
            tokens,
            [shared.text.question_ids(str(q)) for q in part["question"]],
            [shared.text.answer_ids(str(a)) for a in part["answer"]],
        )
        with torch.no_grad():
            right[start : start + BATCH] = vlm.correct(model, inputs.to(device))
        if progress is not None:
            progress("held-out accuracy", min(start + BATCH, len(frame)), len(frame))
    model.train(mode)
    domain = frame["drift_domain"].to_numpy()
    return {str(d): float(right[domain == d].mean()) for d in sorted(set(domain))}


def items(world: World) -> dict[str, int]:
    """Domain -> number of test items."""
    return {str(d): int(n) for d, n in world.test["drift_domain"].value_counts().sort_index().items()}
