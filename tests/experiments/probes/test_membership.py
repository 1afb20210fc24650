"""Membership by an update: who was asked is kept apart from who was not, and a model of its own is scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cdc_flower.config import flat, parse
from cdc_flower.data.world import load_world
from cdc_flower.models import adapters
from cdc_flower.models.student import twin_model
from experiments.probes import membership, probe


@pytest.fixture(scope="module")
def found(config, shared) -> pd.DataFrame:
    """With updates of noise: nothing was learned of anybody."""
    world = load_world(config, shared)
    start, rng = adapters.read(twin_model(shared, config.pair)), np.random.default_rng(0)
    noise = [start + rng.normal(0, 0.02, start.shape).astype(np.float32) for _ in range(config.run.rounds)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "lineage", lambda *_: noise)
        return pd.DataFrame(membership.measure(config, shared, world, lambda *_: None)).assign(seed=0)


def test_every_round_has_its_last_update_and_all_until_then_in_each_domain(found, config):
    assert set(found["round"]) == {1, config.run.rounds}
    assert set(found["arm"]) == {"the last update", "all updates"}
    assert found["auc"].between(0, 1).all()
    assert len(membership.table(found).rows) == len(found)


def test_nobody_was_asked_about_a_picture_of_those_outside(config, shared):
    world = load_world(parse({**flat(config), "run.seed": 5}), shared)
    asked = np.concatenate([row for own in world.streams for row in own])
    free = membership._nobody_was_asked(world, asked)
    names = world.train["image_id"].to_numpy()
    assert len(free)
    assert not set(names[free]) & set(names[asked])


def test_a_log_probability_is_the_sum_over_the_answer_and_its_end(config, shared):
    world, twin = load_world(config, shared), twin_model(shared, config.pair)
    alone = [membership._log_probabilities(twin, shared, world, np.array([i])) for i in (0, 3, 5)]
    together = membership._log_probabilities(twin, shared, world, np.array([0, 3, 5]))
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)
    assert (together < 0).all()


def test_it_is_listed_with_its_own_table():
    assert probe.shown("membership") == (membership.table, membership.write)
