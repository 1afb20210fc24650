"""Claims about drawings: points lie in the picture in their order, gaps stay gaps, axes have whole rounds."""

from __future__ import annotations

import pytest

from experiments.deploy.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, drawing


def test_a_line_breaks_where_there_is_no_value():
    found = drawing([("a", [(1, 0.0), (2, 1.0), (3, None), (4, 0.5)])], 0, 1, "%")
    assert found is not None
    assert found.lines[0].parts == [
        f"{LEFT}.0,{HEIGHT - BOTTOM}.0 {LEFT + (WIDTH - LEFT - RIGHT) / 3:.1f},{TOP}.0"
    ]
    assert len(found.lines[0].dots) == 3
    assert [tick.words for tick in found.y] == ["0%", "25%", "50%", "75%", "100%"]


@pytest.mark.parametrize(("last", "most"), [(1, 1), (7, 5), (40, 6), (2**40, 6)])
def test_axes_have_few_whole_rounds(last, most):
    found = drawing([("a", [(1, 1.0), (last, 2.0)])], 1, 2, "")
    assert found is not None
    assert 1 <= len(found.x) <= most
    assert all(LEFT <= tick.at <= WIDTH - RIGHT for tick in found.x)


def test_nothing_to_draw():
    assert drawing([("a", [(1, None)])], 0, 1, "%") is None
