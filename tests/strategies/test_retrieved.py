"""Each device finds its own users' clips under its own adapter, and what nothing changed is found once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdc_flower import results
from cdc_flower.config import parse
from cdc_flower.models import adapters, retrieval
from cdc_flower.models.student import twin_model
from cdc_flower.tasks.retrieval import WAYS, ranks
from strategies import callbacks, retrieved
from strategies.retrieved import Finder, Shelf, finder
from strategies.run import prepare, run_local


@pytest.fixture
def setup(clip_settings, monkeypatch):
    """Of a pair with a retrieval head of random weights, and galleries smaller than all clips."""
    monkeypatch.setattr(retrieved, "GALLERY", 8)
    found = prepare(parse(clip_settings(method="static")))
    torch.manual_seed(0)
    head = retrieval.Head(64).requires_grad_(False)
    return replace(found, shared=replace(found.shared, head=head))


@pytest.fixture
def model(setup):
    return twin_model(setup.shared, setup.config.pair)


def of(setup, model, devices=(0, 1, 2, 3), world=None) -> Finder:
    made = finder(model, setup.shared, world or setup.world, list(devices), "user")
    assert made is not None
    return made


def test_a_device_searches_its_own_clips_among_others_and_ranks_are_those_of_its_vectors(setup, model):
    made, base = of(setup, model), adapters.read(model)
    other = base + np.random.default_rng(0).normal(0, 0.3, base.shape).astype(np.float32)
    found = made.rows(3, {0: base, 1: base, 2: other, 3: base})
    assert found["round"].unique().tolist() == [3]
    assert found.groupby(["device", "way"]).size().tolist() == [len(made.own[0])] * 8
    assert found.groupby("device")["user"].nunique().tolist() == [1] * 4
    shelf, mine = made.shelf, made.own[2]
    gallery = shelf.gallery(mine)
    assert len(set(gallery.tolist())) == 8
    assert gallery[: len(mine)].tolist() == mine.tolist()
    with adapters.wearing(model, other):
        clips, texts = made._vectors(np.sort(gallery))
    words = np.array([shelf.captions[i] for i in np.sort(gallery)], object)
    own = np.searchsorted(np.sort(gallery), mine)
    right = words[own][:, None] == words[None]
    got = found[found["device"] == 2].set_index("way")["rank"]
    assert got[WAYS[0]].tolist() == ranks(texts[own] @ clips.T, right).tolist()
    assert got[WAYS[1]].tolist() == ranks(clips[own] @ texts.T, right).tolist()
    assert found.groupby("read")["device"].unique().map(list).tolist() in ([[0, 1, 3], [2]], [[2], [0, 1, 3]])


def test_the_layer_of_the_answers_changes_nothing_and_nothing_is_computed_again(setup, model, monkeypatch):
    made, base = of(setup, model), adapters.read(model)
    first = made.rows(0, dict.fromkeys(range(4), base))
    head = base.copy()
    head[adapters.layout(model).places(lambda name, _: adapters.HEAD in name)] += 1
    monkeypatch.setattr(made, "_vectors", None)
    again = made.rows(4, {0: base, 1: head, 2: base, 3: head})
    assert again["read"].nunique() == 1
    assert again.assign(round=0).equals(first)
    with pytest.raises(TypeError):  # it does where anything else differs
        made.rows(5, {0: base + 1, 1: base, 2: base, 3: base})


def test_a_gallery_is_every_held_out_clip_and_few_devices_search_it(setup, model, monkeypatch):
    monkeypatch.setattr(retrieved, "GALLERY", 1000)
    monkeypatch.setattr(retrieved, "SEARCHING", 2)
    made = of(setup, model)
    assert list(made.own) == [0, 3]  # evenly spread
    assert sorted(made.shelf.gallery(made.own[3]).tolist()) == list(range(12))


def test_where_clips_are_nobody_s_one_device_searches_with_all(setup, model):
    shelf = Shelf.of(setup.world, "user")
    made = of(setup, model, [0], replace(setup.world, owners=None))
    assert len(shelf.places) == 12
    assert made.own[0].tolist() == list(range(8))


def test_without_a_head_or_captions_there_is_no_retrieval(setup, model):
    nothing = replace(setup.world, captions=setup.world.captions[:0])
    assert finder(model, setup.shared, nothing, [0], "user") is None
    assert finder(model, replace(setup.shared, head=None), setup.world, [0], "user") is None


@pytest.mark.slow
def test_a_run_measures_it_before_and_after(clip_settings, setup, monkeypatch):
    def with_head(model, shared, *rest):
        return finder(model, replace(shared, head=setup.shared.head), *rest)

    monkeypatch.setattr(callbacks, "finder", with_head)
    found = results.read(run_local(parse(clip_settings(method="static", rounds=2)))).retrieval
    assert sorted(set(found["round"])) == [0, 2]
    assert set(found["familiar"]) == {"seen", "unseen"}
    assert found["read"].nunique() == 1
