"""How sure a figure is follows from its runs, or from the answers of the only one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.report import sure
from experiments.report.summary import interval
from tests.experiments.report.made import made


def test_arms_are_judged_by_own_items_before_drift_before_the_source(tmp_path):
    drifted = made(tmp_path / "a", {"cdc": [70]})
    known = made(tmp_path / "b", {"cdc": [70]}, drift=False)
    own = made(tmp_path / "c", {"cdc": [70]}, personal=True)
    assert [sure.judged_by(one) for one in (own, drifted, known)] == ["own", "drift", "source"]
    assert sure.judged_by(own, drifted) == "drift"
    assert sure.judged_by(drifted, known) == "source"


def test_of_several_seeds_differences_are_taken_seed_by_seed(tmp_path):
    comparison = made(tmp_path, {"static": [10, 20, 40], "cdc": [30, 41, 60]})
    lead = sure.lead((comparison, "cdc"), (comparison, "static"), "drift")
    assert (lead.over, lead.seeds, lead.apart) == ("seeds", 3, True)
    assert lead.value == pytest.approx((0.20 + 0.21 + 0.20) / 3)
    assert lead.ends == pytest.approx(interval([0.20, 0.21, 0.20]))
    assert sure.reached(comparison, "static", "drift").ends == pytest.approx(interval([0.1, 0.2, 0.4]))


def test_of_one_seed_answers_are_paired_question_by_question(tmp_path):
    comparison = made(tmp_path, {"static": [50], "cdc": [52]})
    lead = sure.lead((comparison, "cdc"), (comparison, "static"), "drift")
    deviation = (0.02 * 0.98 * 100 / 99) ** 0.5  # 2 of 100 answers differ, both to one side
    assert lead.value == pytest.approx(0.02)
    assert lead.ends == pytest.approx((0.02 - 0.196 * deviation, 0.02 + 0.196 * deviation))
    assert (lead.over, lead.seeds, lead.apart) == ("questions", 1, False)
    assert sure.told(lead) == (
        "not told apart from 0: 95 % interval -0.8 to +4.8 over the questions of one seed"
    )
    alone = sure.reached(comparison, "cdc", "drift")
    half = 0.196 * (0.52 * 0.48 * 100 / 99) ** 0.5
    assert alone.ends == pytest.approx((0.52 - half, 0.52 + half))


def test_what_is_all_alike_is_not_certain(tmp_path):
    for answers in ({"object": np.array([1.0, 1.0])}, {"object": np.zeros(4), "question": np.full(4, 0.1)}):
        found = sure._sure(pd.Series([0.55]), answers)
        assert (found.value, found.ends, found.over, found.seeds, found.apart) == (0.55, None, "", 1, False)
    seeds = made(tmp_path, {"static": [50, 60], "cdc": [60, 70]})
    lead = sure.lead((seeds, "cdc"), (seeds, "static"), "drift")
    assert (lead.ends, lead.over, lead.seeds, lead.apart) == (None, "", 2, False)
    assert sure.told(lead) == "how sure that is is not known"


def test_of_one_device_in_one_run_nothing_says_how_sure_it_is(tmp_path):
    ten = made(tmp_path, {"static": [50], "cdc": [60]}, personal=True)
    one = replace(ten, personal=ten.personal[ten.personal["device"] == 0])
    lead = sure.lead((one, "cdc"), (one, "static"), "own")
    assert (lead.value, lead.ends, lead.over, lead.apart) == (pytest.approx(0.1), None, "", False)
    assert sure.reached(one, "cdc", "own")[1:3] == (None, "")


def test_runs_of_other_seeds_have_a_difference_without_an_interval(tmp_path):
    one, other = made(tmp_path / "a", {"cdc": [70]}), made(tmp_path / "b", {"cdc": [60]})
    other.runs["seed"] = 7
    lead = sure.lead((one, "cdc"), (other, "cdc"), "drift")
    assert (round(lead.value, 9), lead.ends, lead.seeds, lead.apart) == (0.1, None, 0, False)


def test_what_was_reached_over_rounds_ends_where_the_figure_is(tmp_path):
    comparison = made(tmp_path, {"cdc": [70, 72]}, personal=True)
    for by in ("own", "drift", "source"):
        curve = sure.curve(comparison, by)
        assert curve["mean"].tolist()[-1] == pytest.approx(sure.reached(comparison, "cdc", by).value)
