from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.cloud.episodes import Student, User
from cdc_flower.cloud.fda import Adaptor, Seen
from cdc_flower.cloud.replay import CloudSample
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model

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


WORDS = ("red", "blue")


@pytest.fixture(scope="module")
def users(shared) -> list[User]:
    """Six users of three clips with two questions each; every second one answers everything with 'blue', and
    its questions say so."""
    rng, made = np.random.default_rng(0), []
    for u in range(6):
        word = WORDS[u % 2]
        asked = [shared.text.question_ids(f"is there a {word} {what}?") for what in ("ring", "star")]
        samples, features = [], []
        for _ in range(3):
            tokens = rng.normal(size=(8, shared.width)).astype(np.float32)
            features += [np.resize(tokens.mean(0), 6)] * 2
            samples += [CloudSample(tokens, np.arange(8), q, shared.grid) for q in asked]
        answers = [shared.text.answer_ids(word)] * 6
        made.append(
            User(f"u{u}", Seen(np.stack(features), [s.question_ids for s in samples]), samples, answers)
        )
    return made


@pytest.fixture
def parts(shared, config):
    def make(kind="head", constant=False):
        twin = twin_model(shared, config.pair)
        layout = adapters.layout(twin)
        adaptor = Adaptor(layout, adapters.read(twin), kind, shared.vocab, 6, constant)
        return adaptor, Student(shared, twin, adaptor.at.numpy())

    return make
