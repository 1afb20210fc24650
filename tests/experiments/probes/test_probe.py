"""A probe measures what it says: equal inputs, real bytes, every arm, and its own seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cdc_flower.config import ConfigError, parse
from cdc_flower.data.world import load_world
from cdc_flower.downlink.codecs import CODECS
from cdc_flower.models.student import twin_model
from cdc_flower.uplink.scores import TOKEN_SCORES
from experiments.cli import app as cli
from experiments.probes import probe
from strategies.accuracy import accuracy


def quiet(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def few_items():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "ITEMS", 12)
        yield


@pytest.fixture(scope="module")
def uplink(settings) -> pd.DataFrame:
    return probe.run("uplink", parse({**settings, "run.seed": 3}), 2, quiet)


def test_the_uplink_probe_has_every_score_in_both_directions_on_every_domain(uplink, shared):
    scores = set(TOKEN_SCORES) - {"random"}
    arms = {f"{name} {way}" for name in scores for way in ("high", "low")}
    assert set(uplink["arm"]) == arms | {"random", "all tokens"}
    assert set(uplink["seed"]) == {3, 4}
    assert set(uplink["domain"]) == {"source", "object", "question"}
    assert set(uplink["kept"]) == {6, 13, 28, 45, shared.n_tokens}
    assert uplink["accuracy"].between(0, 1).all()
    assert not uplink.duplicated(["arm", "kept", "seed", "domain"]).any()


def test_more_tokens_cost_more_bytes_and_scores_at_one_count_about_the_same(uplink):
    sizes = uplink.groupby(["kept", "arm"])["bytes"].mean().unstack("kept")
    some = sizes.drop(index="all tokens")[[6, 13, 28, 45]]
    assert (some.diff(axis=1)[[13, 28, 45]] > 0).all(axis=None)
    assert (some[45] < sizes.loc["all tokens", 64]).all()
    assert (some.max() < 2 * some.min()).all()


def test_the_probe_of_a_seed_does_not_depend_on_the_seeds_before_it(settings, uplink):
    alone = probe.run("uplink", parse({**settings, "run.seed": 4}), 1, quiet)
    pd.testing.assert_frame_equal(alone, uplink[uplink["seed"] == 4].reset_index(drop=True))


def test_the_downlink_probe_carries_one_line_through_every_codec(run_settings):
    found = probe.run("downlink", parse(run_settings(rounds=2, **{"cloud.lr": 0.05})), 1, quiet)
    arms = found[["arm", "budget"]].drop_duplicates()
    wanted = [n for n, c in CODECS.items() for _ in range(5 if c.budgeted else 1)]
    assert sorted(arms["arm"]) == sorted(wanted)
    error = found.groupby(["arm", "budget"])["error"].first()
    assert error["fp16"].max() == 0.0
    assert 0 < error["int8"].max() < error["nf4"].max() < 0.5
    falling = error["dyadic"].sort_index(ascending=False).to_numpy()
    assert (np.diff(falling) > 0).all()
    spent = found.groupby(["arm", "budget"])["bytes"].first()
    for name in [n for n, c in CODECS.items() if c.budgeted]:
        assert (spent[name] <= spent[name].index).all()


def test_devices_of_every_compression_wear_every_adapter(run_settings, shared):
    config = parse(run_settings(rounds=3, **{"cloud.lr": 0.05}))
    found = probe.run("compressions", config, 1, quiet)
    worn = ["none, as shipped", "for nf4", "for int8", "for none"]
    pairs = list(zip(found["arm"], found["student"], strict=True))
    assert list(dict.fromkeys(pairs)) == [(a, s) for s in ("nf4", "int8", "none") for a in worn]
    assert found["accuracy"].between(0, 1).all()
    assert not found.duplicated(["arm", "student", "domain"]).any()
    shown = probe.means(found)
    assert len(shown) == 12
    assert "bytes" not in shown
    assert probe.table(found).row_count == 12
    world = load_world(config, shared)
    shipped = accuracy(
        twin_model(shared, config.pair), shared, world
    )  # version 0, whatever the run has left on
    mine = found[(found["arm"] == "none, as shipped") & (found["student"] == "nf4")]
    assert dict(zip(mine["domain"], mine["accuracy"], strict=True)) == shipped


def test_means_are_over_seeds_and_over_the_drifted_domains():
    rows = [
        ("a", 6, 10.0, s, d, v)
        for s, v0 in ((0, 0.2), (1, 0.4))
        for d, v in (("source", 0.9), ("object", v0), ("question", v0 + 0.2))
    ]
    found = pd.DataFrame(rows, columns=["arm", "kept", "bytes", "seed", "domain", "accuracy"])
    row = probe.means(found).iloc[0]
    assert (row["drift"], row["source"]) == (pytest.approx(0.4), pytest.approx(0.9))
    assert row["drift_high"] - row["drift"] == pytest.approx(12.706 * 0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "seeds", "why"), [("sideways", 1, "uplink, downlink"), ("uplink", 0, "at least 1")]
)
def test_what_cannot_be_probed_is_refused(config, name, seeds, why):
    with pytest.raises(ConfigError, match=why):
        probe.run(name, config, seeds, quiet)


def test_the_command_writes_rows_and_a_plot(settings, tmp_path, capsys):
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    with pytest.raises(SystemExit) as end:
        cli.main(["probe", "uplink", "--out", str(tmp_path / "out"), *sets])
    assert end.value.code == 0
    assert "attention high" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "probe.csv")) == 3 * (4 * (2 * len(TOKEN_SCORES) - 1) + 1)
    assert (tmp_path / "out" / "probe.png").stat().st_size > 1000
