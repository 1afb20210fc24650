"""The probe of the uplink: every score, both directions, real bytes, and its own seeds."""

from __future__ import annotations

import pandas as pd
import pytest

from cdc_flower.config import parse
from cdc_flower.uplink.scores import TOKEN_SCORES
from experiments.probes import probe

FEW = {"data.items-per-domain": 8}


def quiet(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def found(settings) -> pd.DataFrame:
    return probe.run("uplink", parse({**settings, **FEW, "run.seed": 3}), 2, quiet)


def test_the_uplink_probe_has_every_score_in_both_directions_on_every_domain(found, shared):
    scores = set(TOKEN_SCORES) - {"random"}
    arms = {f"{name} {way}" for name in scores for way in ("high", "low")}
    assert set(found["arm"]) == arms | {"random", "all tokens"}
    assert set(found["seed"]) == {3, 4}
    assert set(found["domain"]) == {"source", "object", "question"}
    assert set(found["kept"]) == {6, 13, 28, 45, shared.n_tokens}
    assert found["accuracy"].between(0, 1).all()
    assert not found.duplicated(["arm", "kept", "seed", "domain"]).any()


def test_more_tokens_cost_more_bytes_and_scores_at_one_count_about_the_same(found):
    sizes = found.groupby(["kept", "arm"])["bytes"].mean().unstack("kept")
    some = sizes.drop(index="all tokens")[[6, 13, 28, 45]]
    assert (some.diff(axis=1)[[13, 28, 45]] > 0).all(axis=None)
    assert (some[45] < sizes.loc["all tokens", 64]).all()
    assert (some.max() < 2 * some.min()).all()


def test_the_probe_of_a_seed_does_not_depend_on_the_seeds_before_it(settings, found):
    alone = probe.run("uplink", parse({**settings, **FEW, "run.seed": 4}), 1, quiet)
    pd.testing.assert_frame_equal(alone, found[found["seed"] == 4].reset_index(drop=True))
