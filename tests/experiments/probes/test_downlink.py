"""The probe of the downlink: equal inputs and real bytes for every codec."""

from __future__ import annotations

import numpy as np

from cdc_flower.config import parse
from cdc_flower.downlink.codecs import CODECS
from experiments.probes import probe


def quiet(stage: str, done: int, total: int) -> None:
    pass


def test_the_downlink_probe_carries_one_lineage_through_every_codec(run_settings):
    found = probe.run("downlink", parse(run_settings(rounds=2, **{"cloud.lr": 0.05})), 1, quiet)
    arms = found[["arm", "budget"]].drop_duplicates()
    wanted = [n for n, c in CODECS.items() for _ in range(5 if c.budgeted else 1)]
    assert sorted(arms["arm"]) == sorted(wanted)
    error = found.groupby(["arm", "budget"])["error"].first()
    assert error["fp16"].max() == 0.0
    assert 0 < error["int8"].max() < error["nf4"].max() < 0.5
    falling = error["dyadic"].sort_index(ascending=False).to_numpy()
    assert (np.diff(falling) > 0).all()
    assert "fp16, int8, nf4 keep to no budget" in probe.table(found).title
    spent = found.groupby(["arm", "budget"])["bytes"].first()
    for name in [n for n, c in CODECS.items() if c.budgeted]:
        assert (spent[name] <= spent[name].index).all()
