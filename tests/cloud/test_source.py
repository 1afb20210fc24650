"""Claims about what is replayed: nothing that a device meets or a result is reported on."""

from __future__ import annotations

import numpy as np

from cdc_flower.cloud.source import replay_pool
from cdc_flower.config import parse
from cdc_flower.data.world import load_world


def test_no_replayed_picture_is_one_of_a_device_or_of_the_test_split(shared, settings):
    config = parse(settings)
    world = load_world(config, shared)
    pool = replay_pool(config, shared, world)
    assert len(pool) == config.cloud.source_replay
    theirs = {
        np.asarray(t, np.float32).tobytes() for of in (world.train_tokens, world.test_tokens) for t in of
    }
    assert not any(s.tokens.tobytes() in theirs for s in pool)
    assert all(s.whole for s in pool)


def test_the_seed_draws_the_pool_and_no_replay_is_no_sample(shared, settings):
    one, same, other = (
        [s.question_ids for s in replay_pool(c, shared, load_world(c, shared))]
        for c in (parse({**settings, "run.seed": seed}) for seed in (1, 1, 2))
    )
    assert one == same != other
    none = parse({**settings, "cloud.source-replay": 0})
    assert replay_pool(none, shared, load_world(none, shared)) == []
