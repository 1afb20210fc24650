"""`no_uplink`: what the cloud learns of is its own, and the same whatever devices say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cdc_flower.config import ConfigError, parse
from strategies.no_uplink import NoUplink
from strategies.run import prepare

SETTINGS = {"method": "no_uplink", "data.scenes-train": 40}


@pytest.fixture
def build(run_settings):
    def make(**more):
        setup = prepare(parse(run_settings(**SETTINGS, **more)))
        return NoUplink.build(setup), setup

    return make


def test_all_of_a_has_questions_that_the_source_has_not(build):
    asked = {}
    for pool in ("source", "all"):
        made, _ = build(**{"no_uplink.pool": pool}, source_replay=30)
        asked[pool] = {tuple(sample.question_ids) for sample in made.pool}
        assert len(made.pool) == {"source": 30, "all": 90}[pool]
        assert all(sample.label is None and sample.whole for sample in made.pool)
    assert asked["all"] - asked["source"]


def test_a_round_draws_places_for_new_samples_whatever_came(build):
    made, setup = build(source_replay=30, **{"cloud.replay-share": 0.5, "cloud.questions": 1})
    cloud = setup.config.cloud
    assert made.places == cloud.steps * cloud.batch // 2 == made.cloud_work(0).taught
    drawn = [made._fresh(round, [])[0] for round in (1, 1, 2)]
    place = {(one.tokens.tobytes(), *one.question_ids): i for i, one in enumerate(made.pool)}
    ids = [[place[one.tokens.tobytes(), *one.question_ids] for one in some] for some in drawn]
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[0])) == made.places
    arrays = [one.tokens for one in drawn[0]]  # as after a resume: no two samples share a picture's array
    assert len({id(array) for array in arrays}) == len(arrays)


def test_a_cloud_learns_without_a_single_sample_of_a_device(build):
    made, _ = build()
    before = made.adapter_of(0).copy()
    samples, weights = made._fresh(1, [])
    made._learn(1, samples, weights)
    assert not np.array_equal(made.adapter_of(0), before)


def test_a_cloud_without_data_is_refused(build):
    setup = build()[1]
    config = replace(setup.config, cloud=replace(setup.config.cloud, source_replay=0))
    with pytest.raises(ConfigError, match=r"'cloud.source-replay' = 0: method 'no_uplink'"):
        NoUplink.check(replace(setup, config=config))
