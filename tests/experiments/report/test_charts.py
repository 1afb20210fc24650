"""Arms can be told apart in every drawing, and drawings of nothing are drawings."""

import re
from itertools import combinations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from cdc_flower.results import ROUND_COLUMNS
from experiments.report import charts, charts_fleet, charts_personal
from experiments.run import arms as studies
from tests.experiments.report.made import contrast

EMPTY = pd.DataFrame({name: [] for name in (*ROUND_COLUMNS, "method", "seed")}, dtype=object)


@pytest.mark.parametrize("name", studies.studies())
def test_no_two_arms_of_a_study_look_alike(name):
    looks = list(charts.styles(studies.read(name)[1]).values())
    assert all(a != b for a, b in combinations(looks, 2))
    steps = [(look.colour, str(look.dashes)) for look in looks]  # where there are no markers
    assert len(set(steps)) == len(steps)


def test_looks_are_given_by_place_whatever_the_arms_are_called():
    assert list(charts.styles("abc").values()) == list(charts.styles(["x", "cdc", "static"]).values())
    many = charts.styles(map(str, range(504))).values()
    assert len({(look.colour, look.marker, str(look.dashes)) for look in many}) == 504


def test_a_legend_shows_colour_marker_and_dashes():
    shown = {charts.sample(look) for look in charts.styles("abcdefghij").values()}
    assert len(shown) == 10
    assert all(re.search(r"<svg aria-hidden", svg) for svg in shown)  # the name stands beside it


def test_a_run_without_a_round_has_empty_drawings():
    looks = charts.styles(["cdc"])
    drawn = (
        charts.domain_panel(EMPTY, "object", None, looks),
        charts.prequential_panel(EMPTY, looks),
        charts.forgetting_panel({}, looks),
    )
    assert all(svg.startswith('<svg role="img" aria-label="') for svg in drawn)


def test_bytes_are_cumulative_over_rounds_and_mean_over_seeds():
    devices = pd.DataFrame(
        [("m", s, r, 10 * (s + 1), 1) for s in (0, 1) for r in (1, 2)],
        columns=["method", "seed", "round", "uplink_bytes", "downlink_bytes"],
    )
    assert charts.bytes_until(devices) == {("m", 1): 16.0, ("m", 2): 32.0}


def test_prequential_accuracy_weighs_samples_not_domains():
    rounds = pd.DataFrame(
        {
            "method": "m",
            "seed": 0,
            "round": 1,
            "kind": "prequential",
            "domain": ["source", "object"],
            "accuracy": [1.0, 0.0],
            "n": [30, 10],
        }
    )
    assert charts.prequential(rounds)["mean"].tolist() == [0.75]


def test_shares_have_a_percent_sign_and_a_ceiling_and_other_units_have_neither():
    curve = pd.DataFrame({"method": "m", "round": [0, 1], "mean": [0.2, 1.4], "low": 0.2, "high": 1.4})
    shown = {}
    for unit in ("%", "CIDEr"):
        axes = Figure().add_subplot()
        charts.lines(axes, curve, charts.styles(["m"]), unit=unit)
        shown[unit] = axes.get_ylim()[1], axes.yaxis.get_major_formatter()(0.5, 0), axes.get_ylabel()
    assert shown["%"] == (1.02, "50 %", "")
    assert shown["CIDEr"][0] >= 1.4
    assert shown["CIDEr"][1:] == ("50", "CIDEr x 100")


@pytest.mark.parametrize("ground", ["#ffffff", "#1c2024"], ids=["light", "dark"])
def test_lines_stand_out_on_either_ground(ground):
    fleet = [*charts_fleet.FATES.values(), *(c for _, c in charts_fleet.PARTS.values())]
    own = [look[0] for look in charts_personal.LOOKS]
    for colour in {*charts.COLOURS, *fleet, *own, *(c for c, _ in charts_fleet.COUNTS.values())}:
        assert contrast(colour, ground) >= 3, colour
