from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.cloud.replay import CloudSample

QUESTIONS = (
    "where is the star?",
    "what colour is the ring?",
    "is there a red circle?",
    "how many things are blue?",
)


@pytest.fixture(scope="module")
def samples(shared) -> list[CloudSample]:
    """Twelve samples of eight to nineteen tokens each; the questions are of unequal length."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(12):
        positions = np.sort(rng.permutation(shared.n_tokens)[: 8 + i])
        tokens = rng.normal(size=(len(positions), shared.width)).astype(np.float32)
        made.append(CloudSample(tokens, positions, shared.text.question_ids(QUESTIONS[i % 4]), shared.grid))
    return made
