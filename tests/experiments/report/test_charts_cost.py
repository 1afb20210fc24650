"""The picture of the first screen: every arm has its name, its interval and its words."""

import re
from itertools import pairwise

import pytest

from experiments.report import charts
from experiments.report.charts_cost import Path, _names, _ticks, cost_panel

PATHS = {
    "static": Path([(0, 0.1), (0, 0.1)], (0.05, 0.15)),
    "cdc <b>": Path([(0, 0.1), (1e6, 0.5), (2e6, 0.7)], (0.66, 0.74)),
    "a name that is far too long": Path([(0, 0.1), (2e7, 0.69)], None),
}


def test_every_arm_is_named_in_the_picture_and_in_words():
    svg = cost_panel(PATHS, 0.97, charts.styles(PATHS), "right of what was new")
    assert re.findall(r'aria-label="([^"]*)"', svg) == [
        "right of what was new against bytes: static 10.0 ±5.0 for 0 B, cdc &lt;b&gt; 70.0 ±4.0 for 2 MB, a "
        "name that is far too long 69.0 for 20 MB; teacher 97.0"
    ]
    for shown in (
        "static 10.0",
        "cdc &lt;b&gt; 70.0",
        "a name that is far to… 69.0",
        "none",
        "10 MB",
        "teacher",
    ):
        assert f">{shown}<" in svg


@pytest.mark.parametrize(
    "paths", [{"static": PATHS["static"]}, {"cdc": PATHS["cdc <b>"]}], ids=["no bytes", "one"]
)
def test_one_arm_is_drawn_whether_it_sends_or_not(paths):
    svg = cost_panel(paths, None, charts.styles(paths), "right")
    assert (">none<" in svg) == ("static" in paths)


def test_names_do_not_lie_on_each_other_nor_outside():
    at = []

    class Axes:
        def get_ylim(self):
            return 0.0, 1.0

        def annotate(self, text, xy, xytext, **_):
            at.append((text, xytext[1]))

    _names(Axes(), {f"arm{i}": (1.0, y) for i, y in enumerate((0.99, 0.985, 0.98, 0.5, 0.1, 0.1))})
    heights = [height for _, height in at]
    assert heights == sorted(heights)
    assert max(heights) <= 1.0
    assert min(b - a for a, b in pairwise(heights)) >= 1 / 17 - 1e-9
    assert dict(at)["arm3 50.0"] == 0.5


@pytest.mark.parametrize(("low", "high"), [(1.1e6, 2.8e7), (9.0, 9.1), (1.0, 1e7), (2e6, 2e6), (300, 5e5)])
def test_marks_are_few_round_and_where_the_bytes_are(low, high):
    ticks = _ticks(low, high)
    assert len(ticks) <= 3
    assert all(low / 1.3 <= x <= 1.6 * high and f"{x:e}"[1:].startswith(".000000e") for x in ticks)
    assert ticks or high < 2 * low
