"""Batteries: levels that fall with the power drawn, rise on a charger, and never leave [0, capacity].

Time is cut where anything changes (a charger plugged in, a phase of work begun), so a level is a chain of
straight lines and exact. What a full battery cannot take is lost; an empty one draws nothing: the device is
off until it has been charged. Not modelled: losses in the cell, ageing, and that charging slows near the
top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spans:
    """Spans of constant draw: (s,) arrays, in any order; spans of one device may overlap, their watts add up.

    `watts` is power on top of the idle draw (negative: from a charger into the battery), in W.
    """

    device: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    watts: np.ndarray


def run(
    level: np.ndarray, capacity: np.ndarray, idle: np.ndarray, spans: Spans, begin: float, end: float
) -> tuple[np.ndarray, np.ndarray]:
    """Levels after [begin, end], and when each battery was first empty.

    Args:
        level: (n,) J at `begin`; infinite on mains.
        capacity: (n,) J.
        idle: (n,) W, drawn at all times.
        spans: what is drawn besides; the parts outside of [begin, end] are left out.
        begin, end: s.

    Returns:
        (n,) J at `end`, and (n,) s: the first moment at which the battery is empty and more is drawn than
        charged; infinite if there is none.
    """
    n = len(level)
    first, last = np.maximum(spans.begin, begin), np.minimum(spans.end, end)
    kept = (last > first) & np.isfinite(level[spans.device])
    who = spans.device[kept]
    everyone = np.arange(n)
    device = np.concatenate([everyone, who, who, everyone])
    time = np.concatenate([np.full(n, begin), first[kept], last[kept], np.full(n, end)])
    step = np.concatenate([idle, spans.watts[kept], -spans.watts[kept], np.zeros(n)])
    order = np.lexsort((time, device))
    device, time, step = device[order], time[order], step[order]
    starts = np.searchsorted(device, everyone)
    counts = np.diff(np.append(starts, len(device)))
    level, empty, watts = level.astype(np.float64), np.full(n, np.inf), np.zeros(n)
    for k in range(int(counts.max(initial=0)) - 1):
        some = np.flatnonzero(counts > k + 1)
        at = starts[some] + k
        watts[some] += step[at]
        drawn, lasts = watts[some], time[at + 1] - time[at]
        after = level[some] - drawn * lasts
        dies = (after <= 0) & (drawn > 0) & (lasts > 0) & np.isinf(empty[some])
        empty[some[dies]] = time[at][dies] + level[some][dies] / drawn[dies]
        level[some] = np.clip(after, 0.0, capacity[some])
    return level, empty


def charging(
    changes: tuple[np.ndarray, np.ndarray, np.ndarray],
    plugged: np.ndarray,
    power: np.ndarray,
    begin: float,
    end: float,
) -> Spans:
    """The spans in [begin, end] in which devices charge.

    Args:
        changes: time, device, plugged or not, of every change in (begin, end], by time (`Trace.changes`).
        plugged: (n,) bool at `begin`.
        power: (n,) W that go into the battery.
        begin, end: s.
    """
    time, device, begins = changes
    ups = np.concatenate([np.flatnonzero(plugged), device[begins]])
    starts = np.concatenate([np.full(int(plugged.sum()), begin), time[begins]])
    open_to_the_end = plugged.copy()
    np.logical_xor.at(open_to_the_end, device, True)  # every change turns it over
    downs = np.concatenate([device[~begins], np.flatnonzero(open_to_the_end)])
    ends = np.concatenate([time[~begins], np.full(int(open_to_the_end.sum()), end)])
    by_start, by_end = np.lexsort((starts, ups)), np.lexsort((ends, downs))
    who = ups[by_start]
    return Spans(who, starts[by_start], ends[by_end], -power[who])
