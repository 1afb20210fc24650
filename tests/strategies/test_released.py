"""`released`: what its cloud learns with, and that a run with other settings is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cdc_flower.cloud.distill import Cloud, teach
from cdc_flower.config import ConfigError, parse
from cdc_flower.models import adapters
from strategies.checks import check_named
from strategies.no_uplink import NoUplink
from strategies.released import EPOCHS, LAST, Released, _projected, rate
from strategies.run import prepare


@pytest.fixture
def built(run_settings):
    setup = prepare(parse(run_settings(method="released", **{"released.batch": 4})))
    return Released.build(setup)


@pytest.fixture
def samples(run_settings):
    """Complete pictures of the source, with questions."""
    return list(NoUplink.build(prepare(parse(run_settings(method="no_uplink", source_replay=6)))).pool[:6])


def test_the_rate_rises_for_a_fifteenth_and_falls_to_a_sixth():
    assert rate(0.2 / EPOCHS) == pytest.approx(1)
    assert rate(0.1 / EPOCHS) == pytest.approx(0.5)
    assert rate(1.0) == pytest.approx(LAST) == pytest.approx(1 / 6)


def test_every_sample_is_learned_three_times_and_only_vectors_move(built, samples, monkeypatch):
    seen, real = [], Cloud._step
    monkeypatch.setattr(Cloud, "_step", lambda self, batch: seen.append(batch) or real(self, batch))
    before = built.adapter_of(0).copy()
    learned = built.cloud.learn(samples, 1)
    assert [len(batch) for batch in seen] == [4, 2] * EPOCHS
    assert len({id(q) for batch in seen for q in batch}) == len(samples) == learned.taught
    assert all(p.dim() == 1 or 1 in p.shape for p in adapters.trainable(built.model))
    assert not np.array_equal(learned.adapter, before)
    np.testing.assert_array_equal(learned.adapter, adapters.read(built.model))  # no mean of steps
    assert set(learned.losses) == {"ce", "feature", "wavelet"}


def test_features_are_compared_at_the_projector_and_at_the_last_layer(built, samples):
    cloud = built.cloud
    labelled, _ = teach(built.shared, built.teacher, samples[:2])
    tokens = torch.from_numpy(np.concatenate([s.tokens for s in samples[:2]]))
    with torch.no_grad():
        last, both = Cloud._terms(cloud, labelled), cloud._terms(labelled)
        s, t = cloud.align(_projected(cloud.twin, tokens)), _projected(built.teacher.model, tokens)
    added = float(both["feature"] - last["feature"])
    assert added == pytest.approx(float((s - t).square().mean()), rel=1e-4)
    assert float(both["wavelet"]) > float(last["wavelet"])
    assert float(both["ce"]) == pytest.approx(float(last["ce"]))


def test_a_run_with_other_settings_is_refused_with_those_it_needs(run_settings):
    settings = parse(run_settings(method="released"))
    check_named(settings)
    with pytest.raises(ConfigError, match=r"'pair.adapter' = 'lora': method 'released' needs 'norms'"):
        check_named(replace(settings, pair=replace(settings.pair, adapter="lora")))


def test_the_cloud_is_charged_for_its_epochs_and_the_teachers_passes(built):
    work = built.cloud_work(10)
    assert (work.taught, work.steps, work.batch, work.hidden) == (10, 9, 4, True)
    assert built.cloud_work(0).steps == 0
