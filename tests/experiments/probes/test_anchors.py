"""Claims about the probe of anchors: what is counted over seeds, and the whole of it on a tiny pair."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from cdc_flower.config import ConfigError, parse
from cdc_flower.uplink.anchors import ANCHORS
from experiments.probes import anchors, probe
from strategies import reasoned


def _quiet(stage: str, done: int, total: int) -> None:
    pass


def _rows() -> pd.DataFrame:
    """Two seeds: one frame of eight loses 1 and 2 points, two frames 5 and 5."""
    rows = []
    for seed, whole, lost in ((0, 0.8, 0.01), (1, 0.6, 0.02)):
        arm = {"seed": seed, "rule": "uniform", "how": "learned", "covers 90": 0.9}
        rows += [
            {
                "seed": seed,
                "rule": anchors.ALL,
                "k": 8,
                "how": "",
                "bytes": 800,
                "share": 1.0,
                "accuracy": whole,
            },
            arm | {"k": 1, "bytes": 72, "share": 0.09, "error": 0.5, "accuracy": whole - lost},
            arm | {"k": 2, "bytes": 160, "share": 0.2, "error": 0.2, "accuracy": whole - 0.05},
            {"seed": seed, "rule": "time", "k": 4, "how": "hold", "milliseconds": 1.0 + seed},
        ]
    return pd.DataFrame(rows)


def test_what_is_lost_is_counted_seed_by_seed():
    shown = anchors.means(_rows()).set_index("k")
    assert shown.loc[1, "lost"] == pytest.approx(0.015)
    assert shown.loc[2, "lost"] == pytest.approx(0.05)
    assert shown.loc[2, "lost_low"] == pytest.approx(0.05)  # both seeds lose as much, whatever they had
    assert shown.loc[1, "lost_low"] < 0.01 < 0.02 < shown.loc[1, "lost_high"]
    assert shown.loc[1, "covers 90"] == pytest.approx(0.9)


def test_the_target_is_judged_by_share_and_points():
    found = anchors.target(anchors.means(_rows()))
    assert found["reached"] == 1
    assert found["least"] == {
        "rule": "uniform", "k": 1, "how": "learned", "share": 0.09, "lost": pytest.approx(0.015),
    }  # fmt: skip
    worse = _rows().assign(share=lambda rows: 2 * rows["share"])
    assert anchors.target(anchors.means(worse))["reached"] == 0


def test_files_of_the_probe_can_be_read_by_others(tmp_path):
    assert anchors.write(_rows(), tmp_path) == tmp_path / "probe.csv"
    said = json.loads((tmp_path / "probe.json").read_text())
    assert [(arm["rule"], arm["k"]) for arm in said["arms"]] == [
        ("all frames", 8),
        ("uniform", 1),
        ("uniform", 2),
    ]
    assert said["milliseconds"] == {"hold": 1.5}
    assert (tmp_path / "probe.png").read_bytes()[:4] == b"\x89PNG"
    assert "bytes of a clip" in (tmp_path / "probe.svg").read_text()


def test_a_pack_of_pictures_is_refused(config, shared):
    with pytest.raises(ConfigError, match="'scenes' has pictures; allowed: a pack of clips"):
        next(anchors.measure(config, shared, None, _quiet))  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_probe_has_every_rule_number_and_way_in_real_bytes(clip_pair_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(reasoned, "LESSON", replace(reasoned.LESSON, steps=4, tokens=96))
    config = parse({
        "data.pack": "clips", "data.clips-users": 16, "data.clips-each": 4, "drift.axes": "none",
        "pair.folder": str(clip_pair_folder), "pair.compression": "none", "pair.max-answer-tokens": 24,
        "pair.token-cache": str(tmp_path), "run.devices": 2, "uplink.tokens-kept": 4,
    })  # fmt: skip
    found = probe.run("anchors", config, 2, _quiet, quick=True)
    arms = found[found["rule"].isin(list(ANCHORS))]
    counted = {("uniform", k, how) for k in (1, 2) for how in (*anchors.WAYS, *anchors.CONTROLS)}
    counted |= {(rule, k, how) for rule in ANCHORS for k in (1, 2) for how in anchors.WAYS}
    assert set(zip(arms["rule"], arms["k"], arms["how"], strict=True)) == counted
    sizes = arms.groupby("k")["bytes"].mean()
    assert sizes[1] < sizes[2] < found.loc[found["rule"] == anchors.ALL, "bytes"].mean()
    asked = (arms["rule"] == "uniform") | (arms["how"] == "learned")
    assert arms.loc[asked, "accuracy"].between(0, 1).all()
    assert arms.loc[~asked, "accuracy"].isna().all()
    assert (found.loc[found["rule"] == "time", "milliseconds"] > 0).all()
    assert "K" in anchors.table(found).heads
    alone = probe.run("anchors", parse({**_flat(config), "run.seed": 1}), 1, _quiet, quick=True)
    same = found[(found["seed"] == 1) & (found["rule"] != "time")].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone[alone["rule"] != "time"].reset_index(drop=True), same)


def _flat(config):
    from cdc_flower.config import flat

    return flat(config)
