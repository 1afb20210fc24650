"""Sentences that follow from a comparison's numbers, whichever way they fall. For terminal and report."""

from __future__ import annotations

from typing import Any

import pandas as pd

from experiments.report import charts
from experiments.report.summary import Comparison, interval, paired
from experiments.report.terminal import share

OURS = "cdc"


def notes(comparison: Comparison) -> list[str]:
    """What `cdc` reached against the others, or every arm of a study against its first one.

    Empty when nothing drifted, and for the arms of a study with one seed.
    """
    stopped = comparison.runs[comparison.runs["status"] != "completed"]
    if len(stopped):
        return [
            f"{len(stopped)} of {len(comparison.runs)} runs were not completed; what they show is of their "
            "last evaluated round, and nothing is concluded from it."
        ]
    rows = {r["method"]: r for r in comparison.methods.to_dict("records")}
    if OURS not in rows:
        return _against_the_first(comparison, list(rows))
    if pd.isna(rows[OURS]["acc_drift"]):
        return []
    ours, lines = rows[OURS], []
    if not pd.isna(ours["gap_closed"]):
        lines.append(
            f"{OURS} closes {share(ours['gap_closed'])} % of the gap between static and the teacher on the "
            f"drifted domains and forgets {share(ours['forgetting'])} points on the source."
        )
    everything = rows.get("upload_all")
    if everything and everything["uplink_bytes"]:
        part = share(ours["uplink_bytes"] / everything["uplink_bytes"])
        lines.append(f"It sends {part} % of the uplink bytes of upload_all.")
    lines += [line for name, row in rows.items() if row["labels"] for line in _against(comparison, ours, row)]
    return lines


def _against_the_first(comparison: Comparison, arms: list[str]) -> list[str]:
    """Arms of equal seeds meet the same stream, so their differences vary less than they do themselves."""
    lines = []
    for arm in arms[1:]:
        parts = []
        for name, measure in (("drift", "acc_drift"), ("source", "acc_source")):
            apart = paired(comparison.runs, arm, arms[0], measure)
            if ends := interval(apart):
                middle = sum(ends) / 2
                parts.append(f"{name} {100 * middle:+.1f} ±{100 * (ends[1] - middle):.1f}")
        if parts:
            lines.append(f"{arm} against {arms[0]}, points, by seed: {', '.join(parts)}.")
    return lines


def _against(comparison: Comparison, ours: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """A labelled method against ours: at the end, and at the bytes ours has spent in all."""
    name, spent = other["method"], charts.bytes_until(comparison.devices)
    mine, theirs = (r["uplink_bytes"] + r["downlink_bytes"] for r in (ours, other))
    times = f"{theirs / mine:.3g} times the bytes" if mine else "more bytes"
    ahead = "ahead of" if other["acc_drift"] > ours["acc_drift"] else "not ahead of"
    lines = [
        f"{name}, which learns from true labels, ends {ahead} {OURS} on drifted domains "
        f"({share(other['acc_drift'])} against {share(ours['acc_drift'])}) with {times}."
    ]
    curve = charts.accuracy(comparison.rounds, "drift")
    curve = curve[curve["method"] == name]
    at_equal = [
        a
        for r, a in zip(curve["round"].tolist(), curve["mean"].tolist(), strict=True)
        if 0 < spent.get((name, int(r)), 0.0) <= mine
    ]
    if at_equal and at_equal[-1] > ours["acc_drift"]:
        lines.append(f"At the bytes that {OURS} spent in all, {name} wins: {share(at_equal[-1])}.")
    return lines
