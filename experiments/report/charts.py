"""The charts of the report: matplotlib, as SVG text to stand inside the page.

Text and grid take their colour from the page (`currentColor`), so one drawing serves light, dark and paper.
Arms differ by colour (after Okabe and Ito, each at least 3:1 on either background), by marker and by dash,
for readers who do not see the colours apart. Every drawing says in words what it shows.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.report.amounts import percent
from experiments.report.summary import interval
from experiments.report.terminal import share

INK, GRID = "#010203", "#030201"  # stand-ins, replaced by the page's colours
COLOURS = ("#808080", "#1f86d0", "#009e73", "#d55e00", "#c9609a", "#a6761d", "#9467bd", "#1a9bb0")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*")
DASHES: tuple[Any, ...] = (
    *("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (10, 3)), (0, (3, 1, 1, 1, 1, 1))),
    (0, (1, 3)),
)
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
    """A look for each arm by its place in the comparison: no two alike among 504.

    Counts of colours, markers and dashes have no common divisor, so that neighbours differ in all three, and
    a pair of colour and dashes, which bars and steps have, comes again after 56 arms.
    """
    return {
        arm: Style(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, arm in enumerate(arms)
    }


def sample(style: Style) -> str:
    """A short piece of an arm's line, for a legend on the page, beside the arm's name."""

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

    return figure(draw, "", (0.6, 0.18))


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


def figure(draw: Callable[[Any], None], says: str, size: tuple[float, float] = (4.6, 3.0)) -> str:
    """A drawing as SVG text.

    Args:
        draw: puts it on the axes it is given.
        says: the same in words, for who does not see it; "" = decoration.
        size: in inches.
    """
    with mpl.rc_context(RC):
        drawn = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(drawn)
        draw(drawn.add_subplot())
        text = io.StringIO()
        drawn.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(GRID, "var(--grid)")
    role = f'role="img" aria-label="{html.escape(says)}"' if says else 'aria-hidden="true"'
    return svg.replace("<svg ", f"<svg {role} ", 1)


def ends(data: pd.DataFrame, looks: Iterable[str]) -> str:
    """The last mean of every arm in words: "cdc 73.2, static 9.8"."""
    last = data.groupby("method")["mean"].last()
    return ", ".join(f"{arm} {share(last[arm])}" for arm in looks if arm in last)


def hundred(axes: Any, unit: str) -> None:
    """Accuracies 0..1 as 0 % to 100 %; other worths times 100, as high as they are."""
    sign = " %" if unit == "%" else ""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f}{sign}"))
    if unit == "%":
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel(f"{unit} x 100")


def teacher_line(axes: Any, worth: float, at: float = 0.99, ha: str = "right") -> None:
    """The teacher as a dashed line with its name above it, at a share of the width."""
    axes.axhline(worth, color=INK, linestyle=(0, (5, 3)), linewidth=1.2)
    axes.annotate("teacher", (at, worth), xycoords=("axes fraction", "data"), ha=ha, va="bottom", fontsize=8)


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
    data = accuracy(rounds, domain)

    def draw(axes: Any) -> None:
        _over_rounds(axes, data, looks, unit)
        if teacher is not None:
            teacher_line(axes, teacher)
        axes.set_title(domain)

    return figure(draw, f"{domain} over rounds, at the end: {ends(data, looks)}; teacher {share(teacher)}")


def prequential_panel(rounds: pd.DataFrame, looks: Mapping[str, Style], unit: str = "%") -> str:
    """Accuracy on the stream itself, every sample answered before anything is learned from it."""
    data = prequential(rounds)

    def draw(axes: Any) -> None:
        _over_rounds(axes, data, looks, unit)
        axes.set_title("on the stream, before learning from it")

    return figure(draw, f"On the stream over rounds, at the end: {ends(data, looks)}")


def forgetting_panel(forgotten: Mapping[str, Sequence[float]], looks: Mapping[str, Style]) -> str:
    """Bars: source accuracy lost since the student was shipped. `forgotten`: arm -> mean, low, high."""

    def draw(axes: Any) -> None:
        for place, (arm, (mean, low, high)) in enumerate(forgotten.items()):
            axes.barh(place, 100 * mean, color=looks[arm].colour, height=0.6)
            if not pd.isna(low):
                axes.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=1.2)
            side, end = ("left", high) if mean >= 0 else ("right", low)
            end = 100 * (mean if pd.isna(end) else end)
            axes.annotate(f" {percent(mean)} ", (end, place), va="center", ha=side, fontsize=8)
        axes.set_yticks(range(len(forgotten)), list(forgotten))
        axes.invert_yaxis()
        axes.set_axisbelow(True)
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.margins(x=0.18)
        axes.set_xlim(left=min(axes.get_xlim()[0], 0.0), right=max(axes.get_xlim()[1], 1.0))
        axes.set_xlabel("points lost on the source (below 0: gained)")
        axes.set_title("forgetting")

    told = ", ".join(f"{arm} {share(of[0])}" for arm, of in forgotten.items())
    return figure(draw, f"Points of source accuracy lost since shipped: {told}")
