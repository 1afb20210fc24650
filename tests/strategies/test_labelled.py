"""`labelled`: what came is taught, and nobody is asked about it."""

from __future__ import annotations

import pytest

from cdc_flower.config import parse
from cdc_flower.results import read
from strategies.labelled import Labelled
from strategies.run import prepare, run_local


@pytest.fixture
def strategy(run_settings):
    return Labelled.build(prepare(parse(run_settings(method="labelled"))))


def test_the_cloud_teaches_the_labels_that_came(run_settings, monkeypatch):
    from cdc_flower.cloud.distill import Cloud

    real, given = Cloud.learn, []
    monkeypatch.setattr(Cloud, "learn", lambda self, s, *rest: given.extend(s) or real(self, s, *rest))
    found = read(run_local(parse(run_settings(method="labelled", rounds=1))))
    assert len(given) == found.devices["uploaded_samples"].sum() > 0
    assert all(sample.label for sample in given)
    assert found.metrics.query("name == 'dropped'")["value"].sum() == 0


def test_the_teacher_is_charged_for_further_questions_alone(strategy):
    work, cloud = strategy.cloud_work(7), strategy.config.cloud
    further = (cloud.questions - 1) * (7 + min(7, cloud.source_replay))
    assert (work.taught, work.steps) == (further, cloud.steps)
    assert strategy.cloud_work(0).steps == 0
