"""Charts of methods that give every device an adapter of its own.

Accuracy of each device over its adaptations, and a map of what is known of devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from experiments.report.charts import Style, figure, hundred
from experiments.report.summary import Comparison
from experiments.report.terminal import share

MOST = 60  # devices that are drawn one by one
LOOKS = (("#1f86d0", "o", "-"), ("#d55e00", "^", (0, (5, 2))), ("#009e73", "s", (0, (1.5, 1.5))))


def figures(comparison: Comparison, looks: Mapping[str, Style]) -> dict[str, Any]:
    """`charts`, SVG texts, and `says`, what they are of; {} where no run has such data.

    Args:
        comparison: its `personal` and `summaries` are drawn.
        looks: the arms that are shown, in their order.
    """
    personal, maps = comparison.personal, comparison.summaries
    mapped = [arm for arm in looks if len(maps) and (maps["method"] == arm).any()]
    arms = mapped or [arm for arm in looks if len(personal) and (personal["method"] == arm).any()]
    if not arms:
        return {}
    arm = arms[0]
    drawn = [_over(personal[personal["method"] == arm])] if len(personal) else []
    drawn += [_map(maps[maps["method"] == arm])] if mapped else []
    says = (
        f"Of {arm}, first seed. Thin lines are devices, thick ones means; users whose like the models knew "
        "are seen, the others unseen."
    )
    if mapped:
        says += " On the map devices lie by what the cloud made of their data; near ones get like adapters."
    return {"charts": [chart for chart in drawn if chart], "says": says}


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["seed"] == rows["seed"].min()]


def _looks(rows: pd.DataFrame) -> dict[str, tuple[str, str, Any]]:
    """Colour, marker and dashes of each familiarity."""
    return {str(name): LOOKS[i % len(LOOKS)] for i, name in enumerate(sorted(set(rows["familiar"])))}


def _over(personal: pd.DataFrame) -> str:
    """Accuracy of each device on its own held-out items, over rounds; "" without any."""
    rows = _first(personal)
    if rows.empty:
        return ""
    by = ["familiar", "device", "round"]
    each = rows.groupby(by)[["worth", "items"]].sum().reset_index()
    all_ = rows.groupby(["familiar", "round"])[["worth", "items"]].sum().reset_index()

    def draw(axes: Any) -> None:
        shown = sorted(set(each["device"]))
        step = max(1, -(-len(shown) // MOST))
        for name, (colour, marker, dashes) in _looks(rows).items():
            for device in shown[::step]:
                mine = each[(each["device"] == device) & (each["familiar"] == name)]
                axes.plot(
                    mine["round"], mine["worth"] / mine["items"], color=colour, alpha=0.15, linewidth=0.8
                )
            mean = all_[all_["familiar"] == name]
            axes.plot(
                mean["round"],
                mean["worth"] / mean["items"],
                color=colour,
                marker=marker,
                linestyle=dashes,
                linewidth=2.4,
                label=name or "all",
            )
        hundred(axes, "%")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_xlabel("round")
        axes.set_title("devices on their own items")
        axes.legend(frameon=False, fontsize=8)

    last = all_[all_["round"] == all_["round"].max()]
    told = ", ".join(
        f"{name or 'all'} {share(worth / items)}"
        for name, worth, items in zip(last["familiar"], last["worth"], last["items"], strict=True)
    )
    return figure(
        draw, f"Accuracy of {each['device'].nunique()} devices on their own items, at the end: {told}"
    )


def _map(summaries: pd.DataFrame) -> str:
    """Devices as points of a plane."""
    rows = _first(summaries)

    def draw(axes: Any) -> None:
        for name, (colour, marker, _) in _looks(rows).items():
            mine = rows[rows["familiar"] == name]
            axes.scatter(
                mine["x"], mine["y"], color=colour, marker=marker, s=16, alpha=0.8, label=name or "all"
            )
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second")
        axes.set_title("devices by their summaries")
        axes.legend(frameon=False, fontsize=8)

    return figure(draw, f"Map of {len(rows)} devices: each lies by what the cloud made of its data")
