"""`cema`: what its cloud weighs, trains and replays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cdc_flower.cloud.replay import CloudSample, PseudoLabelled
from cdc_flower.config import parse
from cdc_flower.models import adapters
from cdc_flower.results import read
from clients import cema
from strategies.cema import CEMA, doubt
from strategies.run import prepare, run_local


def lesson(logits) -> PseudoLabelled:
    sample = CloudSample(np.zeros((1, 2), np.float32), np.arange(1), [1], (1, 1, 1))
    ids = np.zeros((len(logits), len(logits[0])), np.int64)
    return PseudoLabelled(sample, [0], ids, np.array(logits, np.float32), 0.9)


def test_doubt_is_the_mean_entropy_of_the_steps():
    assert doubt(lesson([[0.0] * 4, [0.0] * 4])) == pytest.approx(math.log(4))
    assert doubt(lesson([[0.0] * 4, [0.0, -1e4, -1e4, -1e4]])) == pytest.approx(math.log(4) / 2)


def test_a_sample_counts_more_the_surer_its_teacher_is(run_settings):
    made = CEMA.build(prepare(parse(run_settings(method="cema"))))
    sure, unsure = made.cloud._sure([lesson([[9.0, 0.0]]), lesson([[0.0, 0.0]])])
    assert unsure.weight == pytest.approx(made.shared.vocab**0.4 / 2)
    assert sure.weight > 1.5 * unsure.weight
    assert all(p.dim() == 1 or 1 in p.shape for p in adapters.trainable(made.model))
    assert set(made.cloud.weights) == {"ce", "kl", "entropy"}
    assert made.cloud.replay.source == []
    assert {group["lr"] for group in made.cloud.optimizer.param_groups} == {0.02}


def test_a_run_that_stops_goes_on_with_the_means_that_devices_keep(run_settings, tmp_path, monkeypatch):
    """Random weights are unsure of everything: all is in the band here, and nothing would be as it is."""
    monkeypatch.setattr(cema, "HIGH", 1.1)

    def stop(*step):
        if step[:2] == ("rounds", 2):
            raise KeyError

    whole, other = (parse(run_settings(method="cema", out_dir=str(tmp_path / n))) for n in ("whole", "other"))
    found = read(run_local(whole))
    with pytest.raises(KeyError):
        run_local(other, stop)
    again = read(run_local(other, resume=True))
    assert found.devices["uploaded_samples"].sum() > 0
    for name in ("ledger_digest", "adapter_digest"):
        assert found.run[name] == again.run[name]
