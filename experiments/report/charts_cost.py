"""The picture of the first screen: what every arm reached for its bytes, with intervals and names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments.report.amounts import size
from experiments.report.charts import INK, Style, figure, hundred, teacher_line
from experiments.report.terminal import share

MOST_LETTERS = 22  # of a name
MOST_TICKS = 3


class Path(NamedTuple):
    """What an arm reached for its bytes.

    Attributes:
        points: (bytes sent so far, accuracy) after each evaluated round.
        interval: ends of the interval of the last one, where it has one.
    """

    points: Sequence[tuple[float, float]]
    interval: tuple[float, float] | None


def cost_panel(
    paths: Mapping[str, Path], teacher: float | None, looks: Mapping[str, Style], title: str, unit: str = "%"
) -> str:
    """Accuracy against all bytes sent so far, on a log scale; the end of each path has its name and interval.

    Paths of no bytes stand at the left, under "none". Names stand beside the axes in the order of the heights
    that they name, so that no two of them lie on each other.
    """
    sent = [b for path in paths.values() for b, _ in path.points if b > 0]
    none = min(sent, default=1.0) / 3

    def draw(axes: Any) -> None:
        for arm, path in paths.items():
            colour, marker, dashes = looks[arm]
            if points := [(b, a) for b, a in path.points if b > 0]:
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=dashes, linewidth=1.2)
            x, y = max(path.points[-1][0], none), path.points[-1][1]
            if path.interval:
                axes.plot([x, x], path.interval, color=colour, linewidth=1.6, marker="_", markersize=7)
            axes.plot([x], [y], color=colour, marker=marker, markersize=7)
        axes.set_xscale("log")
        axes.set_xlim(none / 1.5, 2 * max(sent, default=1.0))
        nothing = any(path.points[-1][0] <= 0 for path in paths.values())
        axes.set_xticks([*([none] if nothing else []), *(_ticks(min(sent), max(sent)) if sent else [])])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: "none" if v == none else size(v)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.set_xlabel("bytes sent up and down by all devices")
        axes.set_title(title)
        hundred(axes, unit)
        if teacher is not None:
            teacher_line(axes, teacher, 0.01, "left")
        _names(axes, {arm: (max(p.points[-1][0], none), p.points[-1][1]) for arm, p in paths.items()})

    told = [
        f"{arm} {share(path.points[-1][1], *(path.interval or ()))} for {size(path.points[-1][0])}"
        for arm, path in paths.items()
    ]
    return figure(draw, f"{title} against bytes: {', '.join(told)}; teacher {share(teacher)}", (4.2, 3.3))


def _names(axes: Any, places: Mapping[str, tuple[float, float]]) -> None:
    """Names right of the axes, at the height of their points or as near as others let them, and a line."""
    low, high = axes.get_ylim()
    step = (high - low) / 17
    heights: list[float] = []
    ordered = sorted(places.items(), key=lambda item: item[1][1])
    for _, (_, y) in ordered:
        heights.append(max(y, heights[-1] + step) if heights else y)
    for i in range(len(heights) - 1, -1, -1):  # who was pushed out at the top comes down, with whom it meets
        heights[i] = min(heights[i], heights[i + 1] - step if i + 1 < len(heights) else high)
    for (arm, (x, y)), height in zip(ordered, heights, strict=True):
        text = f"{arm if len(arm) <= MOST_LETTERS else arm[: MOST_LETTERS - 1] + '…'} {share(y)}"
        line = {"arrowstyle": "-", "color": INK, "linewidth": 0.4, "alpha": 0.6, "shrinkB": 4}
        axes.annotate(
            *(text, (x, y), (1.03, height)),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            arrowprops=line,
        )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers of bytes from about `low` to about `high`: as many as have room."""
    found: list[float] = []
    for steps, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [step * 10.0**power for power in powers if not power % every for step in steps]
        found = [x for x in found if low / 1.3 <= x <= 1.6 * high]
        if len(found) <= MOST_TICKS:
            break
    return found
