"""The figure of `probe anchors`: what is reconstructed and what is answered, against bytes of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.probes.anchors import ALL, PLAIN, TARGET_POINTS, TARGET_SHARE, WAYS

SHOWN = {"error": "squared error, % of that of A's mean", "accuracy": "student right, %"}


def plot(shown: pd.DataFrame, path: Path) -> None:
    """Ways with uniform anchors above, rules with the last way below; PNG or SVG by the path's ending."""
    arms = shown[shown["rule"] != ALL]
    rows = (
        (f"{PLAIN} anchors, made by", arms[arms["rule"] == PLAIN], "how"),
        (f"made by {WAYS[-1]}, anchors by", arms[arms["how"] == WAYS[-1]], "rule"),
    )
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cdc-flower"}):
        figure = Figure(figsize=(8.6, 6.4), layout="constrained", dpi=130)
        for axes, (title, some, by) in zip(figure.subplots(2, 2), rows, strict=True):
            for axis, (name, says) in zip(axes, SHOWN.items(), strict=True):
                _lines(axis, some, by, name)
                _around(axis, shown, name, says)
            axes[1].legend(title=title, fontsize=8, title_fontsize=8, frameon=False)
        figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})


def _lines(axis: Any, arms: pd.DataFrame, by: str, name: str) -> None:
    """A line for each value of a column, over bytes, with its intervals."""
    for i, (label, group) in enumerate(arms.dropna(subset=[name]).groupby(by, sort=False)):
        group = group.sort_values("bytes")
        around = 100 * np.stack([group[name] - group[f"{name}_low"], group[f"{name}_high"] - group[name]])
        axis.errorbar(
            group["bytes"],
            100 * group[name],
            None if np.isnan(around).any() else around,
            color=f"C{i}",
            marker="osD^v"[i % 5],
            label=str(label),
            capsize=2,
            linewidth=1.4,
            markersize=4,
        )


def _around(axis: Any, shown: pd.DataFrame, name: str, says: str) -> None:
    """All frames, the target's bytes, and what the axes are."""
    whole = shown[shown["rule"] == ALL].iloc[0]
    axis.axvline(TARGET_SHARE * whole["bytes"], color="grey", linestyle=":", linewidth=1)
    if name == "accuracy":
        axis.axhline(100 * whole[name], color="black", linewidth=1, label=ALL)
        axis.axhline(100 * (whole[name] - TARGET_POINTS), color="grey", linestyle=":", linewidth=1)
    axis.set_xlim(left=0)
    axis.set_xlabel("bytes of a clip")
    axis.set_ylabel(says)
    axis.grid(alpha=0.3)
