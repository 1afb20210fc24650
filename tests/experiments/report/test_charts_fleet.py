"""The fleet's part of the report, from ledgers with the columns of virtual time; others have no such part."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.report import charts, charts_fleet, page, summary
from experiments.report.charts_fleet import FATES, PARTS

CLASS = {"phone-mid": "phone", "phone-old": "phone", "pi4": "board", "laptop": "laptop"}


def in_virtual_time(folder, seed: int, devices: int = 40) -> None:
    """Give a run folder a ledger and metrics as a run in virtual time has them."""
    rng = np.random.default_rng(seed)
    rounds = sorted(set(pd.read_parquet(folder / "rounds.parquet")["round"]) - {0})
    profile = rng.choice(list(CLASS), devices)
    rows, measured = [], [pd.read_parquet(folder / "metrics.parquet")]
    for r in rounds:
        asked = np.sort(rng.choice(devices, 13, replace=False))
        fate = rng.choice(list(FATES), 13, p=[0.75, 0.15, 0.07, 0.03])
        for device, how in zip(asked, fate, strict=True):
            name = profile[device]
            spent = rng.exponential([8, 30, 60 if CLASS[name] == "phone" else 20, 15, 40])
            came = how == "in"
            rows.append(
                {
                    "round": r,
                    "device": device,
                    "status": "ok" if came else "missing",
                    "uplink_bytes": 12_000 if came else 0,
                    "downlink_bytes": 9_000,
                    "flops_forward": 1e9,
                    "profile": name,
                    "device_class": CLASS[name],
                    "compression": "nf4" if name == "phone-old" else "none",
                    "fate": how,
                    "begin": 600.0 * r,
                    "finish": 600.0 * r + spent[:4].sum() if came else np.inf,
                    "download_seconds": spent[0],
                    "work_seconds": spent[1],
                    "upload_seconds": spent[2],
                    "offline_seconds": spent[3],
                    "wait_seconds": spent[4],
                    "joules": 4.0 * spent[1] + 2.0 * (spent[0] + spent[2]),
                }
            )
        counts = {how: int((fate == how).sum()) for how in FATES}
        values = {"hours": 5.5 * r + seed, "online": 30 + 8 * np.sin(r), "asked": 13, **counts}
        told = {"round": r, "name": list(values), "value": map(float, values.values())}
        measured.append(pd.DataFrame(told))
    pd.DataFrame(rows).to_parquet(folder / "devices.parquet", index=False)
    pd.concat(measured).to_parquet(folder / "metrics.parquet", index=False)


@pytest.fixture(scope="module")
def comparison(compared):
    made = compared({"run.rounds": 4, "run.devices": 40}, ("static", "cdc"))
    before = page.render(made)
    assert "simulated" not in before  # a run without virtual time: the page as it always was
    assert "The fleet" not in before
    for run in made.runs.to_dict("records"):
        in_virtual_time(summary.run_folder(made.out, run["method"], run["seed"]), run["seed"])
    return summary.read(made.out)


def test_the_page_begins_its_plots_with_accuracy_over_simulated_time(comparison):
    shown = page.render(comparison)
    titles = re.findall(r"<h2>([^<]*)</h2>", shown)
    assert titles.index("Accuracy over simulated time") == titles.index("Words on this page") + 1
    assert "The fleet" in titles
    for text in (
        "simulated hours",
        "devices of a round",
        "who takes part",
        "time by device class",
        "energy by device class",
        "stragglers by profile",
        *CLASS,
        *PARTS,
        "late",
        "away",
        "flat",
    ):
        assert text in shown, text
    assert page.render(comparison) == shown
    assert "<script" not in shown


def test_the_fleet_described_is_that_of_the_first_arm_that_sends(comparison):
    devices = comparison.devices
    silent = devices.assign(uplink_bytes=devices["uplink_bytes"].where(devices["method"] == "cdc", 0))
    assert charts_fleet.shown(silent) == "cdc"
    assert charts_fleet.shown(silent[silent["method"] != "cdc"]) == "static"


def test_a_run_that_ended_before_its_first_round_still_makes_a_page(comparison):
    one = replace(comparison, devices=comparison.devices.iloc[:1])
    assert "The fleet" in page.render(one)
    none = replace(comparison, devices=comparison.devices.iloc[:0], metrics=comparison.metrics.iloc[:0])
    assert "The fleet" not in page.render(none)


def test_the_axis_of_time_reaches_the_last_round(comparison):
    svg = charts_fleet.hours_panel(comparison.rounds, comparison.metrics, charts.styles(["cdc"]))
    ticks = [float(t) for t in re.findall(r">(\d+)</text>", svg)]
    assert 20 <= max(ticks) <= 25  # 4 rounds of 5.5 h
    later = comparison.metrics.assign(value=9 * comparison.metrics["value"])
    assert "simulated days" in charts_fleet.hours_panel(comparison.rounds, later, charts.styles(["cdc"]))


def test_accuracy_stands_over_the_mean_hours_of_the_seeds():
    rows = [("m", s, r, "object", "test", 0.2 + 0.1 * r + 0.02 * s) for s in (0, 1) for r in (0, 4)]
    rounds = pd.DataFrame(rows, columns=["method", "seed", "round", "domain", "kind", "accuracy"])
    metrics = pd.DataFrame(
        [("m", s, r, "hours", 2.0 * r + s) for s in (0, 1) for r in (1, 2, 3, 4)],
        columns=["method", "seed", "round", "name", "value"],
    )
    found = charts_fleet.over_hours(rounds, metrics)
    assert found["hours"].tolist() == [0.0, 8.5]
    assert found["mean"].tolist() == pytest.approx([0.21, 0.61])
    assert (found["low"] < found["mean"]).all()
    assert charts_fleet.over_hours(rounds.assign(method="other"), metrics).empty


TASKS = pd.DataFrame(
    [
        (0, 0, "a", "phone", "in", 100.0, 130.0, 5.0, 10.0, 5.0, 10.0, 30.0, 36.0, 1000, 10),
        (0, 0, "a", "phone", "in", 200.0, 210.0, 5.0, 0.0, 5.0, 0.0, 50.0, 72.0, 1000, 10),
        (0, 1, "a", "phone", "late", 100.0, np.inf, 5.0, 20.0, 5.0, 20.0, 10.0, 36.0, 0, 10),
        (0, 2, "b", "board", "flat", 100.0, np.nan, 3.0, 4.0, 0.0, 0.0, 53.0, 3600.0, 0, 10),
    ],
    columns=[
        "seed",
        "device",
        "profile",
        "device_class",
        "fate",
        "begin",
        "finish",
        "download_seconds",
        "work_seconds",
        "upload_seconds",
        "offline_seconds",
        "wait_seconds",
        "joules",
        "uplink_bytes",
        "downlink_bytes",
    ],
).assign(method="m", compression="nf4")


def test_numbers_are_those_one_counts_by_hand():
    assert charts_fleet.tasks_of_devices(TASKS, 5)["m"].tolist() == [0, 0, 0, 0, 2]
    seconds = charts_fleet.seconds_by_class(TASKS)
    assert seconds.loc["phone"].to_dict() == {"compute": 10, "up": 5, "down": 5, "offline": 10, "wait": 30}
    energy = charts_fleet.energy_by_class(TASKS)
    assert energy.loc["phone"].tolist() == pytest.approx([48.0, 0.04])
    assert energy.loc["board"].tolist() == [3600.0, 1.0]
    fates = charts_fleet.fates_by_profile(TASKS)
    assert list(fates.columns) == list(FATES)
    assert fates.loc["a"].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert fates.loc["b"].tolist() == [0, 0, 0, 1]


def test_the_table_by_profile_counts_devices_answers_seconds_and_joules():
    assert charts_fleet.profiles(TASKS) == [
        ("a", "2", "nf4", "3", "67", "20", "48", "0.04", "2 kB", "30 B"),
        ("b", "1", "nf4", "1", "0", "-", "3.6e+03", "1", "0 B", "10 B"),
    ]
    twice = pd.concat([TASKS, TASKS.assign(seed=1)])
    assert charts_fleet.profiles(twice) == charts_fleet.profiles(TASKS)  # per run, however many seeds
