"""The charts of the report: matplotlib, as SVG text to stand inside the page.

Text and grid take their colour from the page (`currentColor`), so one drawing serves light and dark. Arms
differ by colour (after Okabe and Ito), by marker and by dash, for readers who do not see the colours apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from experiments.report.summary import interval

INK, GRID = "#010203", "#030201"  # stand-ins, replaced by the page's colours
COLOURS = ("#8c8c8c", "#1f86d0", "#009e73", "#e69f00", "#cc79a7", "#d55e00", "#9467bd", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1, 1.5)))
RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cdc-flower",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


class Style(NamedTuple):
    """How the lines and bars of an arm are drawn."""

    colour: str
    marker: str
    dashes: Any


def styles(arms: Iterable[str]) -> dict[str, Style]:
    """A look for each arm by its place in the comparison: no two alike among 288.

    Counts of colours and markers have no common divisor, so a pair of them comes again after 72 arms, and
    dashes change with every turn of the colours, for bars and steps, which have no markers.
    """
    return {
        arm: Style(
            COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i // len(COLOURS) % len(DASHES)]
        )
        for i, arm in enumerate(arms)
    }


def sample(style: Style) -> str:
    """A short piece of an arm's line, for a legend on the page."""

    def draw(axes: Any) -> None:
        axes.set_axis_off()
        axes.plot(
            [0, 1, 2],
            [0, 0, 0],
            color=style.colour,
            marker=style.marker,
            linestyle=style.dashes,
            markevery=[1],
        )

    return figure(draw, (0.5, 0.18))


def over_seeds(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """(method, seed, round, value) -> method, round, mean, low, high; the ends are NaN for one seed."""
    rows = []
    for key, group in frame.groupby(["method", "round"], sort=True):
        values = [float(v) for v in group[value].tolist()]
        ends = interval(values) or (float("nan"),) * 2
        rows.append((*key, sum(values) / len(values), *ends))
    frame = pd.DataFrame(rows, columns=["method", "round", "mean", "low", "high"])
    return frame.astype({"round": "int64", "mean": "float64", "low": "float64", "high": "float64"})


def accuracy(rounds: pd.DataFrame, domain: str) -> pd.DataFrame:
    """Test accuracy on a domain, or on "drift" (mean of the drifted domains); see `over_seeds`."""
    test = rounds[rounds["kind"] == "test"]
    test = test[test["domain"] != "source"] if domain == "drift" else test[test["domain"] == domain]
    each = test.groupby(["method", "seed", "round"], as_index=False)["accuracy"].mean()
    return over_seeds(each, "accuracy")


def prequential(rounds: pd.DataFrame) -> pd.DataFrame:
    """Share of all streamed samples of a round answered right, over seeds."""
    rows = rounds[rounds["kind"] == "prequential"]
    rows = rows.assign(correct=rows["accuracy"] * rows["n"])
    each = rows.groupby(["method", "seed", "round"], as_index=False)[["correct", "n"]].sum()
    return over_seeds(each.assign(accuracy=each["correct"] / each["n"]), "accuracy")


def bytes_until(devices: pd.DataFrame) -> dict[tuple[str, int], float]:
    """(method, round) -> bytes up and down of all devices until the end of the round, mean over seeds."""
    if devices.empty:
        return {}
    both = devices.assign(bytes=devices["uplink_bytes"] + devices["downlink_bytes"])
    each = both.groupby(["method", "seed", "round"], as_index=False)["bytes"].sum()
    each["bytes"] = each.groupby(["method", "seed"])["bytes"].cumsum()
    mean = each.groupby(["method", "round"])["bytes"].mean()
    return {(str(m), int(r)): float(b) for (m, r), b in mean.items()}


def figure(draw: Callable[[Any], None], size: tuple[float, float] = (4.6, 3.0)) -> str:
    """What `draw` puts on its axes, as SVG text; size in inches."""
    with mpl.rc_context(RC):
        drawn = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(drawn)
        draw(drawn.add_subplot())
        text = io.StringIO()
        drawn.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(GRID, "var(--grid)")
    return svg.replace("<svg ", '<svg role="img" ', 1)


def hundred(axes: Any, unit: str) -> None:
    """Accuracies 0..1 as 0 % to 100 %; other worths times 100, as high as they are."""
    sign = " %" if unit == "%" else ""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f}{sign}"))
    if unit == "%":
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel(f"{unit} x 100")


def _label(axes: Any, text: str, x: float, y: float, colour: str, ha: str = "left") -> None:
    """Small text above the height `y`, at the share `x` of the width."""
    axes.annotate(
        text, (x, y), xycoords=("axes fraction", "data"), ha=ha, va="bottom", fontsize=8, color=colour
    )


def lines(
    axes: Any, data: pd.DataFrame, looks: Mapping[str, Style], x: str = "round", unit: str = "%"
) -> None:
    """A line of `mean` over the column `x` with a band from `low` to `high`, for every arm of `looks`."""
    for arm, (colour, marker, dashes) in looks.items():
        mine = data[data["method"] == arm]
        axes.plot(mine[x], mine["mean"], color=colour, marker=marker, linestyle=dashes, label=arm)
        axes.fill_between(mine[x], mine["low"], mine["high"], color=colour, alpha=0.18, linewidth=0)
    hundred(axes, unit)


def _over_rounds(axes: Any, data: pd.DataFrame, looks: Mapping[str, Style], unit: str) -> None:
    lines(axes, data, looks, unit=unit)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def domain_panel(
    rounds: pd.DataFrame, domain: str, teacher: float | None, looks: Mapping[str, Style], unit: str = "%"
) -> str:
    """Test accuracy over rounds on one domain, a line per arm, the teacher dashed."""

    def draw(axes: Any) -> None:
        _over_rounds(axes, accuracy(rounds, domain), looks, unit)
        if teacher is not None:
            axes.axhline(teacher, color=INK, linestyle=(0, (5, 3)), linewidth=1.2)
            _label(axes, "teacher", 0.99, teacher, INK, ha="right")
        axes.set_title(domain)

    return figure(draw)


def prequential_panel(rounds: pd.DataFrame, looks: Mapping[str, Style], unit: str = "%") -> str:
    """Accuracy on the stream itself, every sample answered before anything is learned from it."""

    def draw(axes: Any) -> None:
        _over_rounds(axes, prequential(rounds), looks, unit)
        axes.set_title("on the stream, before learning from it")

    return figure(draw)


def bytes_panel(
    rounds: pd.DataFrame, devices: pd.DataFrame, looks: Mapping[str, Style], unit: str = "%"
) -> str:
    """Accuracy on drifted domains against all bytes sent so far, both directions, log scale."""
    spent, curve = bytes_until(devices), accuracy(rounds, "drift")

    def draw(axes: Any) -> None:
        free = []
        for arm, (colour, marker, dashes) in looks.items():
            mine = curve[curve["method"] == arm]
            points = [
                (spent.get((arm, int(r)), 0.0), a)
                for r, a in zip(mine["round"].tolist(), mine["mean"].tolist(), strict=True)
            ]
            sent = [(b, a) for b, a in points if b > 0]
            if sent:
                axes.plot(*zip(*sent, strict=True), color=colour, marker=marker, linestyle=dashes)
            elif points:
                free.append((arm, colour, points[-1][1]))
        for arm, colour, last in free:
            axes.axhline(last, color=colour, linestyle=":")
            _label(axes, f"{arm}, no bytes", 0.01, last, colour)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(axes) < 2 else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _short(v)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bytes up + down, all devices, cumulative")
        axes.set_title("drifted domains")
        hundred(axes, unit)

    return figure(draw)


def _decades(axes: Any) -> float:
    low, high = axes.get_xlim()
    return math.log10(high / low)


def _short(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:g} {unit}"
        count /= 1000
    return f"{count:g} TB"


def forgetting_panel(forgotten: Mapping[str, Sequence[float]], looks: Mapping[str, Style]) -> str:
    """Bars: source accuracy lost since the student was shipped. `forgotten`: arm -> mean, low, high."""

    def draw(axes: Any) -> None:
        for place, (arm, (mean, low, high)) in enumerate(forgotten.items()):
            axes.barh(place, 100 * mean, color=looks[arm].colour, height=0.6)
            if not pd.isna(low):
                axes.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=1.2)
            axes.annotate(f" {100 * mean:.1f}", (100 * mean, place), va="center", fontsize=8, color=INK)
        axes.set_yticks(range(len(forgotten)), list(forgotten))
        axes.invert_yaxis()
        axes.set_axisbelow(True)
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlim(left=min(axes.get_xlim()[0], 0.0), right=max(axes.get_xlim()[1], 1.0))
        axes.set_xlabel("points of source accuracy lost since shipped (below 0: gained)")
        axes.set_title("forgetting")

    return figure(draw)
