"""Claims about what is replayed: nothing that a device meets or a result is reported on."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.cloud.source import replay_pool
from cdc_flower.config import parse
from cdc_flower.data import packs
from cdc_flower.data.world import load_world


@pytest.fixture
def folder(settings, tmp_path):
    """The generated pack as a folder, where models and devices share one train split."""
    made = packs.load(parse(settings).data, seed=1)
    parts = [
        frame.assign(image=[images[str(i)] for i in frame["image_id"]])
        for frame, images in ((made.train, made.train_images), (made.test, made.test_images))
    ]
    packs.write_pack(tmp_path / "mine", *parts)
    return tmp_path / "mine"


@pytest.mark.parametrize("kind", ["generated", "folder"])
def test_no_replayed_picture_is_in_a_devices_stream_or_in_the_test_split(kind, shared, settings, folder):
    own = {"data.pack": str(folder)} if kind == "folder" else {}
    config = parse({**settings, **own, "run.rounds": 20, "run.samples-per-round": 20})
    world = load_world(config, shared)
    pool = replay_pool(config, shared, world)
    assert 5 < len(pool) <= config.cloud.source_replay
    met = np.unique(np.concatenate([rows for stream in world.streams for rows in stream]))
    pictures = world.train["image_row"].to_numpy()[met]
    theirs = [world.train_tokens[i] for i in pictures] + list(world.test_tokens)
    taken = {np.asarray(tokens, np.float32).tobytes() for tokens in theirs}
    assert not any(s.tokens.tobytes() in taken for s in pool)
    assert all(s.whole for s in pool)


def test_the_seed_draws_the_pool_and_no_replay_is_no_sample(shared, settings):
    one, same, other = (
        [s.question_ids for s in replay_pool(c, shared, load_world(c, shared))]
        for c in (parse({**settings, "run.seed": seed}) for seed in (1, 1, 2))
    )
    assert one == same != other
    none = parse({**settings, "cloud.source-replay": 0})
    assert replay_pool(none, shared, load_world(none, shared)) == []
