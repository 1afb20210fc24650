"""Claims about the figure of anchors: every way and rule has a line, and one seed has no intervals."""

import re

import pandas as pd

from experiments.probes import anchors
from experiments.probes.anchor_figure import plot


def test_ways_and_rules_have_lines_also_with_one_seed(tmp_path):
    ends = {f"{name}{end}": float("nan") for name in anchors.FIGURES for end in ("_low", "_high")}
    whole = {"rule": anchors.ALL, "k": 8, "how": "", "bytes": 800, "accuracy": 0.8}
    arms = [
        {"rule": rule, "k": k, "how": how, "bytes": 90 * k, "error": 0.5 / k, "accuracy": 0.7}
        for rule in ("uniform", "motion")
        for k in (1, 2)
        for how in ("hold", "learned")
    ]
    plot(pd.DataFrame([whole, *arms]).assign(**ends), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert set(re.findall(r">(hold|learned|uniform|motion|all frames)<", text)) == {
        "hold", "learned", "uniform", "motion", "all frames",
    }  # fmt: skip
