"""Virtual time: who answers in time, who late, when a round ends, and where everyone's time went.

The clock charges what profiles, network and trace say, whatever the host takes (FedScale's idea, arXiv
2105.11367). A battery that runs out ends a task (`tasks`).

In the mode `sync` a round begins with more devices than are wanted (over-selection, Bonawitz et al., arXiv
1902.01046) and ends when enough have answered or at its deadline, whichever is first. What comes later is
dropped, or taken in the round in which it arrives. In the mode `async` nothing is dropped: a round ends
whenever `buffer` answers have come in, old and new alike (FedBuff, arXiv 2106.06639), and a task is given up
after `deadline` seconds of its own. A round always ends. All of a round is computed at once, over arrays:
what happens between two moments of a device is in its trace. State goes in and comes out; nothing is kept
here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdc_flower.fleet.cost.profiles import Devices
from cdc_flower.fleet.cost.roofline import joules
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.time import battery
from cdc_flower.fleet.time.tasks import Plan, Spent, Tasks, draws, plan, spent
from cdc_flower.fleet.time.traces import Trace

STATUSES = ("in", "late", "away", "flat")
"""in: answered before the round's end. late: would answer after it. away: no answer ever comes, never online
long enough again or silent. flat: the battery ran out."""


@dataclass(frozen=True)
class State:
    """All that the clock carries from round to round.

    Attributes:
        now: s since the run began.
        round: rounds played.
        level: (n,) J in each battery, infinite on mains.
        pending: tasks of earlier rounds still under way.
    """

    now: float
    round: int
    level: np.ndarray
    pending: Plan

    def state(self) -> dict[str, Any]:
        """A flat dict of arrays and numbers, for a checkpoint."""
        pending = {f"pending_{f.name}": getattr(self.pending, f.name) for f in dataclasses.fields(Plan)}
        return {"now": self.now, "round": self.round, "level": self.level, **pending}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> State:
        """The state that `state()` came from."""
        pending = Plan(*(np.asarray(state[f"pending_{f.name}"]) for f in dataclasses.fields(Plan)))
        return cls(float(state["now"]), int(state["round"]), np.asarray(state["level"]), pending)


@dataclass(frozen=True)
class Report:
    """A round. Arrays (m,) by device, of those asked; `late_*` of earlier rounds' tasks that arrived in it,
    `lost_*` of those that never will.

    Attributes:
        round: from 1.
        begin, end: s.
        device: int64.
        status: int64, places in `STATUSES`.
        finish: s; infinite for one that never answers.
        spent: sums to `end - begin`, for a late task that is taken to `finish - begin`.
        joules: energy of the whole device over that time.
        late_device, late_round, late_finish: who, asked in which round, arrived when.
        lost_device, lost_round, lost_status: who, asked in which round, and why, places in `STATUSES`.
    """

    round: int
    begin: float
    end: float
    device: np.ndarray
    status: np.ndarray
    finish: np.ndarray
    spent: Spent
    joules: np.ndarray
    late_device: np.ndarray
    late_round: np.ndarray
    late_finish: np.ndarray
    lost_device: np.ndarray
    lost_round: np.ndarray
    lost_status: np.ndarray

    @property
    def answered(self) -> np.ndarray:
        """The devices that answered in time, (a,) int64, by device."""
        return self.device[self.status == STATUSES.index("in")]


def start(devices: Devices, charge: float = 1.0) -> State:
    """The clock before the first round, batteries charged to a share of their capacity."""
    none = np.zeros(0)
    whole = np.zeros(0, np.int64)
    level = np.where(np.isinf(devices.battery), math.inf, charge * np.nan_to_num(devices.battery, posinf=0.0))
    return State(0.0, 0, level, Plan(whole, whole, none, none, none, none, none, none))


# --- who is asked -------------------------------------------------------------------------------------------


def candidates(state: State, devices: Devices, trace: Trace, config: FleetConfig) -> np.ndarray:
    """The devices that may be asked now, (k,) int64 by device: online, on the conditions of the config,
    charged enough, and not at work on an earlier task.
    """
    fine = trace.suitable(state.now, config.need_charging, config.need_idle)
    least = config.min_battery * np.nan_to_num(devices.battery, posinf=0.0)
    fine &= (state.level >= least) & (state.level > 0)
    fine[state.pending.device] = False
    return np.flatnonzero(fine)


def staleness_weight(staleness: np.ndarray, power: float) -> np.ndarray:
    """(1 + s)^-power of an answer that was begun s versions ago (FedAsync, arXiv 1903.03934)."""
    return (1.0 + np.asarray(staleness, np.float64)) ** -power


# --- a round ------------------------------------------------------------------------------------------------


def _batteries(
    state: State, tasks: Plan, cut: np.ndarray, devices: Devices, trace: Trace, end: float, who: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Levels (n,) at `end` of the devices `who`, and when their batteries were first empty, (n,); the others'
    levels stay.
    """
    level, empty = state.level.copy(), np.full(len(devices), np.inf)
    who = who[np.isfinite(level[who])]
    if not len(who):
        return level, empty
    place = np.full(len(devices), -1)
    place[who] = np.arange(len(who))
    drawn = draws(tasks, devices, trace, cut)
    time, device, plugs = trace.changes(state.now, end, need_charging=True)
    known = place[device] >= 0
    charges = battery.charging(
        (time[known], place[device[known]], plugs[known]),
        trace.suitable(state.now, need_charging=True)[who],
        devices.charge_power[who],
        state.now,
        end,
    )
    drawing = place[drawn.device] >= 0
    both = battery.Spans(
        np.concatenate([place[drawn.device[drawing]], charges.device]),
        np.concatenate([drawn.begin[drawing], charges.begin]),
        np.concatenate([drawn.end[drawing], charges.end]),
        np.concatenate([drawn.watts[drawing], charges.watts]),
    )
    level[who], empty[who] = battery.run(
        level[who], devices.battery[who], devices.idle_power[who], both, state.now, end
    )
    return level, empty


def play(
    state: State,
    tasks: Tasks,
    wanted: int,
    devices: Devices,
    trace: Trace,
    config: FleetConfig,
    cloud_seconds: float = 0.0,
) -> tuple[State, Report]:
    """One round.

    Args:
        state: before it.
        tasks: of the devices asked.
        wanted: answers that are enough; all of them, where fewer devices are asked. The mode `async` has its
            `buffer` instead.
        devices: n devices.
        trace: of the same n devices.
        config: mode, deadline, what becomes of late answers, and `round_every`.
        cloud_seconds: what the cloud does after the round, before the next one can begin.

    Returns:
        The state when the next round can begin, and what happened. A round in which nobody is asked, or
        nobody answers, lasts to its deadline and is reported as empty. A late answer arrives in the first
        round that ends after it.

    Raises:
        ValueError: a device is asked that is still at work on an earlier task.
    """
    busy = np.intersect1d(tasks.device, state.pending.device)
    if len(busy):
        raise ValueError(f"round {state.round + 1} asks device {busy[0]}, which is at work on a late task")
    fresh = plan(tasks, devices, trace, state.now, state.round + 1)
    everyone, earlier = state.pending.with_more(fresh), len(state.pending)
    deadline = state.now + config.deadline
    if config.mode == "async":
        limit = everyone.begin + config.deadline
        taken = everyone.finish <= limit
    else:
        limit = np.full(len(everyone), deadline)
        taken = np.isfinite(everyone.finish) & (config.late == "take")
    cut = np.where(taken, everyone.finish, np.minimum(everyone.finish, limit))
    next_begin = max(deadline + cloud_seconds, state.now + config.round_every)  # at the latest
    _, empty = _batteries(state, everyone, cut, devices, trace, next_begin, np.unique(everyone.device))
    died = empty[everyone.device]
    finish = np.where((died < cut) | (everyone.finish > cut), np.inf, everyone.finish)
    settled = np.minimum(np.minimum(finish, limit if config.mode == "async" else np.inf), died)

    end = max(state.now, _end(config, deadline, finish, settled, earlier, wanted))
    next_begin = max(end + cloud_seconds, state.now + config.round_every)
    if config.mode != "async":
        cut = np.where(taken, everyone.finish, np.minimum(everyone.finish, end))
    flat = (died < cut) & (died <= np.where(taken, next_begin, end))
    cut = np.where(flat, died, cut)
    level, _ = _batteries(state, everyone, cut, devices, trace, next_begin, np.arange(len(devices)))
    arrived = finish <= end
    going = ~flat & ~arrived & ((settled > end) if config.mode == "async" else taken)
    status = np.select([arrived, flat, np.isinf(everyone.finish)], [0, 3, 2], default=1)
    late = everyone.rows(arrived & (np.arange(len(everyone)) < earlier))
    gone = ~arrived & ~going & (np.arange(len(everyone)) < earlier)
    dead, cut = flat[earlier:], cut[earlier:]
    used = spent(fresh, trace, np.where(dead, np.minimum(cut, end), cut), np.full(len(fresh), end))
    off = np.where(dead, used.wait, 0.0)  # an empty battery draws nothing
    energy = joules(
        devices.rows(fresh.device), used.work, used.download + used.upload, used.offline + used.wait - off
    )
    known = np.where(dead, np.inf, fresh.finish)
    report = Report(
        state.round + 1,
        state.now,
        end,
        fresh.device,
        status[earlier:],
        known,
        used,
        energy,
        late.device,
        late.round,
        late.finish,
        everyone.device[gone],
        everyone.round[gone],
        status[gone],
    )
    return State(next_begin, state.round + 1, level, everyone.rows(going)), report


def _end(
    config: FleetConfig, deadline: float, finish: np.ndarray, settled: np.ndarray, earlier: int, wanted: int
) -> float:
    """When a round ends: with the answer that makes enough; else at its deadline, or (async) once nothing
    more can come.
    """
    if config.mode == "async":
        coming = np.sort(finish[np.isfinite(finish)])
        if len(coming):
            return float(coming[min(config.buffer, len(coming)) - 1])
        return float(settled.max()) if len(settled) else deadline
    enough = min(wanted, len(finish) - earlier)
    return min(deadline, float(np.sort(finish[earlier:])[enough - 1])) if enough else deadline
