"""Probes: one part of the method alone, without training every arm, so that many arms cost seconds.

Each probe has a file of its own and says there what it measures; here are their list, the seeds, and what is
shown of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from cdc_flower.config import Config, ConfigError, flat, parse
from cdc_flower.data.features import Progress
from cdc_flower.downlink.codecs import CODECS
from experiments.probes import anchors, compressions, downlink, inversion, membership, uplink
from experiments.report.summary import interval
from experiments.report.tables import Fitted
from experiments.report.terminal import share
from strategies.run import prepare

SIZES = ("kept", "budget", "student")  # columns that make arms of one name differ
PROBES = {
    "uplink": uplink.measure,
    "downlink": downlink.measure,
    "compressions": compressions.measure,
    "inversion": inversion.measure,
    "membership": membership.measure,
    "anchors": anchors.measure,
}
"""Name -> what measures one seed."""
QUICK = {
    "inversion": partial(inversion.measure, size=inversion.QUICK),
    "anchors": partial(anchors.measure, size=anchors.QUICK),
}
"""Probes that can be tried in seconds; their figures are worth nothing then."""


def run(probe: str, config: Config, seeds: int, tell: Progress, quick: bool = False) -> pd.DataFrame:
    """One row per arm, seed and domain, with `accuracy` (0..1) and, but for `compressions`, `bytes` (mean of
    a sample or an update). `inversion`, `membership` and `anchors` have figures of
    their own.

    Args:
        probe: one of `PROBES`.
        config: its seed is the first of `seeds`.
        tell: progress.
        quick: see `QUICK`.

    Raises:
        ConfigError: another probe, no seed, or settings that cannot be run.
    """
    if probe not in PROBES:
        raise ConfigError(f"unknown probe '{probe}'; allowed: {', '.join(PROBES)}")
    if quick and probe not in QUICK:
        raise ConfigError(f"--quick with probe '{probe}'; allowed: {', '.join(QUICK)}")
    measure = (QUICK if quick else PROBES)[probe]
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}; allowed: at least 1")
    configs = [parse({**flat(config), "run.seed": config.run.seed + i}) for i in range(seeds)]
    torch.set_num_threads(1)
    rows = []
    for now in configs:
        setup = prepare(now, tell)
        shared, world = setup.shared, setup.world
        rows += [{"seed": now.run.seed, **row} for row in measure(now, shared, world, tell)]
    return pd.DataFrame(rows)


def means(found: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and size (or student): mean bytes where there are any, and mean and 95 % interval over
    seeds of source and drift.
    """
    sizes = [c for c in SIZES if c in found]
    source = found[found["domain"] == "source"].assign(domain="source")
    drift = found[found["domain"] != "source"].assign(domain="drift")
    by = ["arm", *sizes, "seed", "domain"]
    values = pd.concat([source, drift]).groupby(by, sort=False)["accuracy"].mean().reset_index()
    sent = found.groupby(["arm", *sizes])["bytes"].mean() if "bytes" in found else {}
    rows = []
    for key, group in values.groupby(["arm", *sizes], sort=False):
        row: dict[str, Any] = dict(zip(["arm", *sizes], key, strict=True))
        row |= {"bytes": float(sent[key])} if len(sent) else {}
        for domain, part in group.groupby("domain"):
            shares = part["accuracy"].tolist()
            ends = interval(shares) or (float("nan"),) * 2
            row |= {domain: float(np.mean(shares)), f"{domain}_low": ends[0], f"{domain}_high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> Fitted:
    """The means, for the terminal."""
    shown = means(found)
    numbers = [c for c in (*SIZES, "bytes") if c in shown]
    rows = [
        (
            str(row["arm"]),
            *(row[c] if c == "student" else f"{row[c]:,.0f}" for c in numbers),
            *(share(*(row.get(f"{d}{end}") for end in ("", "_low", "_high"))) for d in ("drift", "source")),
        )
        for row in shown.to_dict("records")
    ]
    free = ", ".join(name for name, codec in CODECS.items() if not codec.budgeted)
    title = f"{free} keep to no budget: they send the whole adapter, and the frame's head on top"
    heads = ("arm", *numbers, "drift %", "source %")
    return Fitted(heads, rows, left=("student",), title=title if "budget" in numbers else "")


def write(found: pd.DataFrame, out: Path) -> Path:
    """Write `probe.csv` and, where bytes were counted, `probe.png` into the folder; returns the first."""
    out.mkdir(parents=True, exist_ok=True)
    found.to_csv(out / "probe.csv", index=False)
    if "bytes" in found:
        plot(means(found), out / "probe.png")
    return out / "probe.csv"


def plot(shown: pd.DataFrame, path: Path) -> None:
    """Accuracy on drifted domains against bytes, an arm a line, with its intervals; PNG."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    for i, (arm, rows) in enumerate(shown.groupby("arm", sort=False)):
        rows = rows.sort_values("bytes")
        x, y = rows["bytes"], 100 * rows["drift"]
        around = 100 * np.stack([rows["drift"] - rows["drift_low"], rows["drift_high"] - rows["drift"]])
        axes.errorbar(
            x,
            y,
            None if np.isnan(around).any() else around,
            color=f"C{i % 10}",
            marker="osD^vPX"[i % 7],
            linestyle=("-", "--", ":")[i // 10 % 3],
            label=str(arm),
            capsize=2,
            linewidth=1.4,
            markersize=4,
        )
    axes.set_xscale("log")
    ticks = sorted(10**e * m for e in range(7) for m in (1, 2, 5))
    axes.set_xticks([t for t in ticks if shown["bytes"].min() / 1.5 <= t <= shown["bytes"].max() * 1.5])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bytes of a sample" if "kept" in shown else "bytes of an update")
    axes.set_ylabel("right on drifted domains, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Software": None})


SHOWN = {
    "inversion": (inversion.table, inversion.write),
    "membership": (membership.table, membership.write),
    "anchors": (anchors.table, anchors.write),
}
"""Name -> how its rows are shown and written, where not as accuracy by arm."""


def shown(probe: str) -> tuple[Callable[[pd.DataFrame], Fitted], Callable[[pd.DataFrame, Path], Path]]:
    """The table of a probe's rows, and what writes them."""
    return SHOWN.get(probe, (table, write))
