"""Claims about the reasoner of a run: of the cloud's own clips, in the run's bits, shared by seeds."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cdc_flower.config import ConfigError, parse
from strategies import reasoned


@pytest.fixture
def shared():
    return SimpleNamespace(frames=3, width=5, name="p", transform_for=lambda uplink: None)


@pytest.fixture
def clips(monkeypatch):
    rng = np.random.default_rng(0)
    found = [rng.normal(size=(12, 5)).astype(np.float16) for _ in range(20)]
    monkeypatch.setattr(reasoned, "source_tokens", lambda config, shared, world: found)
    monkeypatch.setattr(reasoned, "LESSON", replace(reasoned.LESSON, steps=2, tokens=48))
    return found


def _made(shared: Any, cache, told=None, **settings):
    config = parse({"pair.token-cache": str(cache), **settings})
    world: Any = None
    return reasoned.reasoner_of(config, shared, world, told)


def test_it_is_trained_once_for_all_seeds_and_again_for_other_bits(shared, clips, tmp_path):
    told = []

    def tell(stage, done, total):
        told.append(done)

    one = _made(shared, tmp_path, tell)
    trained = len(told)
    again = _made(shared, tmp_path, tell, **{"run.seed": 5})
    assert trained == len(told) > 0
    sent, at = torch.ones(1, 1, 4, 5), torch.tensor([[1]])
    assert torch.equal(one(sent, at)[1], again(sent, at)[1])
    _made(shared, tmp_path, tell, **{"uplink.token-bits": 16})
    assert len(told) == 2 * trained
    assert len(list((tmp_path / "reasoners").iterdir())) == 2


def test_clips_are_spread_over_all_of_a(shared, clips):
    some: Any = reasoned.clips_of_a(parse({}), shared, None, 3)  # type: ignore[arg-type]
    assert some.shape == (3, 3, 4, 5)
    np.testing.assert_array_equal(some[1].reshape(12, 5), clips[9])


def test_what_arrives_is_what_the_uplink_decodes(shared):
    tokens = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    few, all_ = (reasoned.arrives(parse({"uplink.token-bits": b}), shared)(tokens) for b in (3, 16))
    assert 0.01 < np.abs(few - tokens).max() < 1
    assert np.abs(all_ - tokens).max() < 2e-3


def test_all_rules_are_asked_with(monkeypatch):
    seen = []
    monkeypatch.setattr(reasoned, "choose", lambda kind, tokens, k, rng: seen.append(kind))
    rng = np.random.default_rng(0)
    for _ in range(40):
        reasoned.any_rule(np.zeros((2, 1, 1)), 1, rng)
    assert set(seen) == {"uniform", "motion", "farthest", "random"}


def test_pictures_and_too_few_clips_are_refused(shared, clips, tmp_path):
    del clips[9:]
    with pytest.raises(ConfigError, match="A has 9 clips; allowed for a reasoner: at least 10"):
        _made(shared, tmp_path)
    shared.frames = 0
    with pytest.raises(ConfigError, match="'p' reads pictures; allowed for a reasoner: a pair for clips"):
        _made(shared, tmp_path)
