"""The fleet's part of the report: who took part, where time and energy went, in virtual time.

Drawn from the columns that virtual time adds to the ledger and from the counts of each round; a comparison
without them (`fleet.mode = "off"`) has no such part. Accuracy over hours has a line for each method; the rest
describes one method (`shown`), because who is late depends on the devices far more than on the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cdc_flower.tasks import task_of
from experiments.report import charts
from experiments.report.amounts import size
from experiments.report.charts import INK, Style
from experiments.report.terminal import share

FATES = {"in": "#009e73", "late": "#c77c00", "away": "#808080", "flat": "#c9609a"}
"""Fate of a task -> colour."""
PARTS = {
    "compute": ("work_seconds", "#1f86d0"),
    "up": ("upload_seconds", "#c9609a"),
    "down": ("download_seconds", "#c77c00"),
    "offline": ("offline_seconds", "#808080"),
    "wait": ("wait_seconds", "#009e73"),
}
"""What a task's time is spent on -> column, colour."""
HATCHES = ("", "///", "...", "xxx", "---")  # of parts of a bar, for who does not see the colours apart
COUNTS = {"online": ("#808080", ":"), "asked": ("#c77c00", "--"), "in": ("#009e73", "-")}
COLUMNS = {
    "profile",
    "device_class",
    "compression",
    "fate",
    "begin",
    "finish",
    "joules",
    *(column for column, _ in PARTS.values()),
}
WIDE = (7.0, 3.3)
BINS = 24  # of a histogram, at most
PROFILE_COLUMNS = (
    "profile",
    "devices",
    "compression",
    "tasks",
    "answered %",
    "median task s",
    "J a task",
    "Wh",
    "bytes up",
    "bytes down",
)


def there(comparison: Any) -> bool:
    """Whether the runs were in virtual time."""
    columns, named = comparison.devices.columns, comparison.metrics.get("name", ())
    return not COLUMNS - set(columns) and "hours" in set(named)


def shown(devices: pd.DataFrame) -> str:
    """The arm whose devices are described: the first that sends something."""
    timed = devices[devices["fate"].notna()]
    sent = timed.groupby("method", sort=False)["uplink_bytes"].sum()
    return str([*sent[sent > 0].index, *sent.index][0])


def figures(comparison: Any, looks: Mapping[str, Style]) -> dict[str, Any]:
    """Everything the template shows: SVGs, the table by profile, and of which method they are."""
    method = shown(comparison.devices)
    tasks = comparison.devices[comparison.devices["method"] == method]
    counts = comparison.metrics[comparison.metrics["method"] == method]
    return {
        "method": method,
        "hours": hours_panel(
            comparison.rounds, comparison.metrics, looks, task_of(comparison.index["config"]).shown
        ),
        "panels": [
            counts_panel(counts),
            shares_panel(comparison.devices, looks, comparison.index["config"]["run.devices"]),
            time_panel(tasks),
            energy_panel(tasks),
            stragglers_panel(tasks),
        ],
        "columns": PROFILE_COLUMNS,
        "profiles": profiles(tasks),
    }


# --- numbers ------------------------------------------------------------------------------------------------


def hours(metrics: pd.DataFrame) -> pd.Series:
    """(method, round) -> virtual hours at the end of the round, mean over seeds; 0 for round 0."""
    found = metrics[metrics["name"] == "hours"]
    start = found[["method"]].drop_duplicates().assign(round=0, value=0.0)
    both = pd.concat([start, found[found["round"] > 0]])
    return both.groupby(["method", "round"])["value"].mean()


def over_hours(rounds: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Held-out accuracy on drift: method, round, hours, mean, low, high; methods without hours are absent."""
    curve = charts.accuracy(rounds, "drift")
    at = hours(metrics).rename("hours").reset_index()
    return curve.merge(at, on=["method", "round"]).sort_values(["method", "hours"])


def tasks_of_devices(devices: pd.DataFrame, fleet: int) -> dict[str, np.ndarray]:
    """Method -> how many tasks of each device came in, (seeds x fleet,) int64; 0 for one never asked."""
    found = {}
    for method, mine in devices.groupby("method", sort=False):
        good = mine[mine["fate"] == "in"]
        per = good.groupby(["seed", "device"]).size().to_numpy()
        never = mine["seed"].nunique() * fleet - len(per)
        found[str(method)] = np.concatenate([np.zeros(max(0, never), np.int64), per])
    return found


def seconds_by_class(tasks: pd.DataFrame) -> pd.DataFrame:
    """Device class -> mean seconds of an asked task spent on each of `PARTS`."""
    columns = {column: part for part, (column, _) in PARTS.items()}
    return tasks.groupby("device_class")[list(columns)].mean().fillna(0.0).rename(columns=columns)


def energy_by_class(tasks: pd.DataFrame) -> pd.DataFrame:
    """Device class -> J of an asked task, and Wh of a run (mean over seeds)."""
    groups = tasks.groupby("device_class")["joules"]
    return pd.DataFrame({"joules": groups.mean(), "wh": groups.sum() / 3600 / tasks["seed"].nunique()})


def fates_by_profile(tasks: pd.DataFrame) -> pd.DataFrame:
    """Profile -> share of its asked tasks of each fate, 0..1; columns in the order of `FATES`."""
    shares = pd.crosstab(tasks["profile"], tasks["fate"], normalize="index")
    return shares.reindex(columns=list(FATES), fill_value=0.0)


def profiles(tasks: pd.DataFrame) -> list[tuple[str, ...]]:
    """The table by profile, cells as text in the order of `PROFILE_COLUMNS`; sums are means over seeds."""
    seeds, rows = tasks["seed"].nunique(), []
    for name, mine in tasks.groupby("profile"):
        came = mine[mine["fate"] == "in"]
        took = (came["finish"] - came["begin"]).median()
        devices = len(mine[["seed", "device"]].drop_duplicates()) / seeds
        rows.append(
            (
                str(name),
                f"{devices:.0f}",
                ", ".join(sorted(map(str, set(mine["compression"])))),
                f"{len(mine) / seeds:,.0f}",
                f"{100 * len(came) / len(mine):.0f}",
                "-" if pd.isna(took) else f"{took:,.3g}",
                f"{mine['joules'].mean():,.3g}",
                f"{mine['joules'].sum() / 3600 / seeds:,.3g}",
                size(mine["uplink_bytes"].sum() / seeds),
                size(mine["downlink_bytes"].sum() / seeds),
            )
        )
    return rows


# --- drawings -----------------------------------------------------------------------------------------------


def _clock(longest: float) -> tuple[float, str]:
    """What hours are multiplied by, and the label of their axis: days where there are many."""
    return (1 / 24, "simulated days") if longest > 96 else (1.0, "simulated hours")


def hours_panel(
    rounds: pd.DataFrame, metrics: pd.DataFrame, looks: Mapping[str, Style], unit: str = "%"
) -> str:
    """Held-out accuracy on drifted domains over simulated time, a line and a band for each method."""
    data = over_hours(rounds, metrics)

    def draw(axes: Any) -> None:
        scale, label = _clock(data["hours"].max())
        charts.lines(axes, data.assign(hours=scale * data["hours"]), looks, "hours", unit)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.set_title("drifted domains, held out, over simulated time")

    return charts.figure(
        draw, f"Drifted domains over simulated time, at the end: {charts.ends(data, looks)}", WIDE
    )


def counts_panel(metrics: pd.DataFrame) -> str:
    """Devices online, asked and in, over simulated time."""
    table = metrics.pivot_table(index="round", columns="name", values="value", aggfunc="mean")
    table = table[table.index > 0]

    def draw(axes: Any) -> None:
        scale, label = _clock(table["hours"].max())
        for name, (colour, dashes) in COUNTS.items():
            if name in table:
                axes.plot(scale * table["hours"], table[name], color=colour, linestyle=dashes, label=name)
        present = table[[name for name in COUNTS if name in table]]
        if present.max().max() > 20 * max(1.0, present.min().min()):
            axes.set_yscale("symlog", linthresh=10)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        axes.set_title("devices of a round")

    last = table.iloc[-1]
    told = ", ".join(f"{name} {last[name]:,.0f}" for name in COUNTS if name in last)
    return charts.figure(draw, f"Devices of a round over simulated time, in the last one: {told}")


def shares_panel(devices: pd.DataFrame, looks: Mapping[str, Style], fleet: int) -> str:
    """How many of the devices had how many tasks in, a line for each method."""
    found = tasks_of_devices(devices, fleet)
    most = max((int(counts.max()) for counts in found.values()), default=0)
    step = max(1, -(-(most + 1) // BINS))
    edges = np.arange(0, most + step + 1, step) - 0.5

    def draw(axes: Any) -> None:
        for arm in [arm for arm in looks if arm in found]:
            heights, _ = np.histogram(found[arm], edges)
            colour, _, dashes = looks[arm]
            axes.stairs(heights / len(found[arm]), edges, color=colour, linestyle=dashes, linewidth=1.8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tasks of a device that came in")
        axes.set_ylabel("share of devices")
        axes.set_title("who takes part")

    told = ", ".join(f"{arm} {found[arm].mean():.1f}" for arm in looks if arm in found)
    return charts.figure(draw, f"How many devices had how many tasks in, on average: {told}")


def _stacked(axes: Any, table: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """Horizontal bars, a row of the table each, its columns one after another, with a legend below."""
    left = np.zeros(len(table))
    for (name, colour), hatch in zip(colours.items(), HATCHES, strict=False):
        look = {"color": colour, "hatch": hatch, "edgecolor": INK, "linewidth": 0.4}
        axes.barh(table.index.tolist(), table[name], left=left, height=0.62, label=name, **look)
        left += table[name].to_numpy()
    axes.invert_yaxis()
    axes.set_axisbelow(True)
    axes.grid(axis="y", visible=False)
    axes.figure.legend(
        frameon=False, fontsize=8, ncols=len(colours), loc="outside lower center", handlelength=1.2
    )


def time_panel(tasks: pd.DataFrame) -> str:
    """Where the seconds of a task go, by device class."""
    table = seconds_by_class(tasks)

    def draw(axes: Any) -> None:
        _stacked(axes, table, {part: colour for part, (_, colour) in PARTS.items()})
        axes.set_xlabel("seconds of an asked task, mean")
        axes.set_title("time by device class")

    told = ", ".join(f"{name} {of.sum():,.3g}" for name, of in table.iterrows())
    return charts.figure(draw, f"Seconds of an asked task by device class: {told}")


def energy_panel(tasks: pd.DataFrame) -> str:
    """Joules of a task by device class, with the Wh of the whole run beside."""
    table = energy_by_class(tasks)

    def draw(axes: Any) -> None:
        axes.barh(table.index.tolist(), table["joules"], color="#1f86d0", height=0.62)
        for place, (joules, wh) in enumerate(zip(table["joules"], table["wh"], strict=True)):
            axes.annotate(
                f" {joules:,.3g} J, {wh:,.3g} Wh in all", (joules, place), va="center", fontsize=8, color=INK
            )
        axes.invert_yaxis()
        axes.set_axisbelow(True)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 1.6 * max(table["joules"].max(), 1e-9))
        axes.set_xlabel("J of an asked task, mean")
        axes.set_title("energy by device class")

    told = ", ".join(f"{name} {joules:,.3g}" for name, joules in table["joules"].items())
    return charts.figure(draw, f"Joules of an asked task by device class: {told}")


def stragglers_panel(tasks: pd.DataFrame) -> str:
    """Share of asked tasks that were late, away or flat, by profile."""
    table = fates_by_profile(tasks)

    def draw(axes: Any) -> None:
        _stacked(axes, table, {name: colour for name, colour in FATES.items() if name != "in"})
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
        axes.set_xlim(0, max(0.01, 1.05 * (1 - table["in"]).max()))
        axes.set_xlabel("share of asked tasks")
        axes.set_title("stragglers by profile")

    told = ", ".join(f"{name} {share(1 - of)} %" for name, of in table["in"].items())
    return charts.figure(draw, f"Share of asked tasks that were late, away or flat, by profile: {told}")
