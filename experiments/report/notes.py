"""Sentences that follow from a comparison's numbers, whichever way they fall. For terminal and report."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cdc_flower.data.look import FEW, uncertainty
from cdc_flower.tasks import task_of
from experiments.report import charts, own, retrieval, sure
from experiments.report.amounts import percent
from experiments.report.summary import Comparison, interval, paired
from experiments.report.terminal import share


def subject(comparison: Comparison) -> str | None:
    """The arm that the others are set against: the first that learns without labels and without gradients on
    devices. None among the arms of a study, where the first of all is the one.
    """
    index = comparison.index
    if any(arm.get("run.method") != name for name, arm in index["arms"].items()):
        return None
    for name, has in index["traits"].items():
        if has["adapts"] and not has["labels"] and not has["device_backprop"]:
            return name
    return None


def notes(comparison: Comparison) -> list[str]:
    """What the subject reached against the others, or every arm of a study against its first one, on all
    items and on devices' own; then what the guard held, what the task counts beside, and what is known
    against the pair.

    Empty when nothing drifted and for the arms of a study with one seed, where the task has nothing beside.
    """
    return [
        *_conclusions(comparison),
        *_own(comparison),
        *retrieval.notes(comparison),
        *_few(comparison),
        *_guarded(comparison),
        *_beside(comparison),
        *filter(None, [comparison.index.get("pair_note")]),
    ]


def _few(comparison: Comparison) -> list[str]:
    """Which domains have so few items that a share of them says little, and by how much it may be off."""
    few = {name: n for name, n in comparison.items.items() if 0 < n < FEW}
    said = ", ".join(f"{name} has {n} (±{uncertainty(n):.0f} points, 95 %)" for name, n in few.items())
    return [f"Few test items: {said}."] if few else []


def _own(comparison: Comparison) -> list[str]:
    """How far arms are ahead of the subject, or of the first arm of a study, on devices' own items."""
    if comparison.personal.empty or (comparison.runs["status"] != "completed").any():
        return []
    return own.notes(comparison, subject(comparison) or comparison.index["methods"][0])


def _guarded(comparison: Comparison) -> list[str]:
    """How often the guard of an arm held a version back; nothing where it never did."""
    metrics = comparison.metrics
    held = metrics[metrics["name"] == "guard_held"] if len(metrics) else metrics
    return [
        f"{arm}: the guard (cloud.guard) held back {int(of.sum())} of {len(of)} versions in part or whole."
        for arm, of in (held.groupby("method", sort=False)["value"] if len(held) else [])
        if of.sum()
    ]


def _beside(comparison: Comparison) -> list[str]:
    """The further figures of the task after the last round, by arm and domain, times 100."""
    task, metrics = task_of(comparison.index["config"]), comparison.metrics
    lines = [] if task.unit == "accuracy" else [f"What is counted is {task.unit}; all of it times 100."]
    absent = []
    for name in (*task.beside, *([f"{task.unit} {task.by}"] if task.by else [])):
        mine = metrics[metrics["name"].str.startswith(f"{name} ")] if len(metrics) else metrics
        if mine.empty:
            absent += [name] if name in task.beside else []
            continue
        last = mine[mine["round"] == mine.groupby(["method", "seed"])["round"].transform("max")]
        means = last.groupby(["name", "method"], sort=False)["value"].mean()
        for full in dict.fromkeys(last["name"]):
            lines.append(f"{full}: " + ", ".join(f"{arm} {share(v)}" for arm, v in means[full].items()) + ".")
    if absent:
        lines.append(f"{', '.join(absent)}: not computed here (docs/method.md says what it takes).")
    return lines


def _conclusions(comparison: Comparison) -> list[str]:
    planned = len(comparison.index["methods"]) * len(comparison.index["seeds"])
    if left := planned - int((comparison.runs["status"] == "completed").sum()):
        never = planned - len(comparison.runs)
        of_them = f", {never} of them not begun" if never else ""
        return [
            f"{left} of {planned} runs that were asked for were not completed{of_them}; what is shown of "
            "them is of their last evaluated round, and nothing is concluded from it."
        ]
    rows = {r["method"]: r for r in comparison.methods.to_dict("records")}
    name = subject(comparison)
    if name is None or name not in rows:
        return _against_the_first(comparison, list(rows))
    if pd.isna(rows[name]["acc_drift"]):
        return []
    ours, lines = rows[name], []
    drifted = sum(n for domain, n in comparison.items.items() if domain != "source")
    if not pd.isna(ours["gap_closed"]):
        lines.append(
            f"{name} closes {share(ours['gap_closed'])} % of the gap between the student as shipped and the "
            f"teacher on the drifted domains ({drifted:,} items{_lead(comparison, name)}) and "
            f"{'forgets' if ours['forgetting'] >= 0 else 'gains'} {share(abs(ours['forgetting']))} points on "
            "the source."
        )
    for row in rows.values():
        if row["labels"]:
            lines += _against(comparison, ours, row)
    return lines


def _lead(comparison: Comparison, name: str) -> str:
    """How sure it is that an arm is ahead of the student as shipped; "" where that was not compared."""
    traits = comparison.index["traits"]
    for shipped in comparison.methods["method"]:
        if not traits[shipped]["adapts"]:
            lead = sure.lead((comparison, name), (comparison, shipped), sure.DRIFT)
            return f"; lead over {shipped}: {sure.told(lead)}"
    return ""


def _against_the_first(comparison: Comparison, arms: list[str]) -> list[str]:
    """Arms of equal seeds meet the same stream, so their differences vary less than they do themselves."""
    lines = []
    for arm in arms[1:]:
        parts = []
        for name, measure in (("drift", "acc_drift"), ("source", "acc_source")):
            apart = paired(comparison.runs, arm, arms[0], measure)
            if ends := interval(apart):
                middle = sum(ends) / 2
                parts.append(f"{name} {percent(middle, sign=True)} ±{percent(ends[1] - middle)}")
        if parts:
            lines.append(f"{arm} against {arms[0]}, points, by seed: {', '.join(parts)}.")
    return lines


def _against(comparison: Comparison, ours: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """A labelled method against ours: at the end, and at the bytes ours has spent in all."""
    name, spent = other["method"], charts.bytes_until(comparison.devices)
    mine, theirs = (r["uplink_bytes"] + r["downlink_bytes"] for r in (ours, other))
    times = f"{theirs / mine:.3g} times the bytes" if mine else "more bytes"
    ahead = "ahead of" if other["acc_drift"] > ours["acc_drift"] else "not ahead of"
    lead = sure.told(sure.lead((comparison, name), (comparison, ours["method"]), sure.DRIFT))
    lines = [
        f"{name}, which learns from true labels, ends {ahead} {ours['method']} on drifted domains "
        f"({share(other['acc_drift'])} against {share(ours['acc_drift'])}; difference: {lead}) with {times}."
    ]
    curve = charts.accuracy(comparison.rounds, "drift")
    curve = curve[curve["method"] == name]
    at_equal = [
        a
        for r, a in zip(curve["round"].tolist(), curve["mean"].tolist(), strict=True)
        if 0 < spent.get((name, int(r)), 0.0) <= mine
    ]
    if at_equal and at_equal[-1] > ours["acc_drift"]:
        lines.append(f"At the bytes that {ours['method']} spent in all, {name} wins: {share(at_equal[-1])}.")
    return lines
