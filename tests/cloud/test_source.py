"""Claims about what is replayed: nothing that a device meets or a result is reported on."""

from __future__ import annotations

import numpy as np
import pytest

from cdc_flower.cloud.source import all_of_a, replay_pool, validation_pool
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


@pytest.fixture(params=["generated", "folder"])
def world(request, shared, settings, folder):
    own = {"data.pack": str(folder)} if request.param == "folder" else {}
    config = parse({**settings, **own, "run.rounds": 20, "run.samples-per-round": 20})
    return config, load_world(config, shared)


def _bytes(pool):
    return {item.sample.tokens.tobytes() for item in pool}


def test_no_picture_of_a_is_in_a_devices_stream_or_in_the_test_split(world, shared):
    config, read = world
    pool = replay_pool(config, shared, read)
    assert 5 < len(pool) <= config.cloud.source_replay
    met = np.unique(np.concatenate([rows for stream in read.streams for rows in stream]))
    pictures = read.train["image_row"].to_numpy()[met]
    theirs = [read.train_tokens[i] for i in pictures] + list(read.test_tokens)
    taken = {np.asarray(tokens, np.float32).tobytes() for tokens in theirs}
    validation, every = validation_pool(config, shared, read), all_of_a(config, shared, read)
    assert not taken & _bytes([*pool, *validation, *every])
    assert all(item.sample.whole for item in [*pool, *validation, *every])


def test_validation_is_source_and_shares_no_picture_with_what_is_trained_on(world, shared):
    config, read = world
    validation = validation_pool(config, shared, read)
    assert validation
    assert {item.domain for item in validation} == {"source"}
    assert not _bytes(validation) & _bytes(all_of_a(config, shared, read))
    assert len(validation_pool(config, shared, read, count=3)) == 3


def test_all_of_a_holds_every_domain_of_the_run_and_the_replayed_samples(world, shared):
    config, read = world
    every = all_of_a(config, shared, read)
    assert {item.domain for item in every} == {"source", *config.axes}
    asked = {(item.sample.tokens.tobytes(), tuple(item.sample.question_ids)) for item in every}
    assert {
        (i.sample.tokens.tobytes(), tuple(i.sample.question_ids)) for i in replay_pool(config, shared, read)
    } <= asked
    assert len(all_of_a(config, shared, read, count=7)) == 7


def test_an_item_has_the_label_of_its_question(world, shared):
    config, read = world
    pack = read.pack if config.data.pack != "scenes" else packs.load(config.data, seed=0)
    said = {}
    for question, answer in zip(pack.train["question"], pack.train["answer"], strict=True):
        said.setdefault(tuple(shared.text.question_ids(question)), set()).add(answer)
    pool = replay_pool(config, shared, read)
    assert all(item.answer in said[tuple(item.sample.question_ids)] for item in pool)
    assert len({item.answer for item in pool}) > 1


def test_the_seed_draws_the_pool_and_no_replay_is_no_sample(shared, settings):
    one, same, other = (
        [item.sample.question_ids for item in replay_pool(c, shared, load_world(c, shared))]
        for c in (parse({**settings, "run.seed": seed}) for seed in (1, 1, 2))
    )
    assert one == same != other
    none = parse({**settings, "cloud.source-replay": 0})
    assert replay_pool(none, shared, load_world(none, shared)) == []
