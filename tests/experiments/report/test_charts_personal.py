"""Claims about the charts of devices: shown only where a run has the data, of the arm that has a map."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.report import page
from experiments.report.charts import styles
from experiments.report.charts_personal import figures

LOOKS = styles(["static", "cdc"])


def personal_of(arm: str) -> pd.DataFrame:
    rows = [
        {"round": r, "device": d, "user": "", "domain": "source", "familiar": ("seen", "unseen")[d % 2]}
        for r in (0, 2)
        for d in range(4)
    ]
    return pd.DataFrame(rows).assign(worth=1.0, items=2, method=arm, seed=0)


def map_of(arm: str) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    own = {"device": range(4), "user": "", "familiar": ["seen", "unseen"] * 2, "x": rng.normal(size=4)}
    return pd.DataFrame(own).assign(y=1.0, method=arm, seed=0)


@pytest.fixture
def given(comparison):
    personal = pd.concat([personal_of("static"), personal_of("cdc")])
    return replace(comparison, personal=personal, summaries=map_of("cdc"))


def test_without_such_data_there_is_nothing(comparison):
    assert figures(comparison, LOOKS) == {}


def test_the_arm_that_has_a_map_is_drawn(given):
    found = figures(given, LOOKS)
    assert len(found["charts"]) == 2
    assert "Of cdc" in found["says"]
    for chart in found["charts"]:
        assert ">seen<" in chart
        assert ">unseen<" in chart
        assert chart.startswith('<svg role="img"')


def test_accuracy_alone_is_of_the_first_arm_that_has_it(given):
    found = figures(replace(given, summaries=given.summaries.iloc[:0]), LOOKS)
    assert len(found["charts"]) == 1
    assert "Of static" in found["says"]
    assert "map" not in found["says"]


def test_the_page_shows_charts_and_clips(given):
    row = {"image": [b"a", b"b"], "positions": [2, 3], "errors": [0.31, 0.0], "side": 0, "question": "q?"}
    row |= {"device_answer": "", "teacher_answer": "", "round": 1, "device": 0, "n_tokens": 4}
    text = page.render(replace(given, pictures=pd.DataFrame([{**row, "method": "cdc", "seed": 0}])))
    assert "Every device by itself" in text
    assert "q?; anchor frames 2 of 2; reconstruction errors of the frames 31 %, 0 %" in text
    assert text.count('stroke-width="3"') == 1
    assert text.count("<dt>teacher</dt>") == 1  # among the words
