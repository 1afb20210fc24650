"""The table of device-tasks: its fates as they are known now, and the same again from a checkpoint."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from cdc_flower.fleet.cost.profiles import Devices, read_profiles
from cdc_flower.fleet.settings import FleetConfig
from cdc_flower.fleet.time.clock import play, start
from cdc_flower.fleet.time.task_table import TaskTable
from cdc_flower.fleet.time.tasks import Tasks
from cdc_flower.fleet.time.traces import always

BOARDS = Devices.of([read_profiles()["pi4"]] * 3)
ASYNC = FleetConfig(mode="async", deadline=100.0, buffer=1)
NOBODY = Tasks(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0))


def table() -> TaskTable:
    return TaskTable(BOARDS, ("nf4", "none", "none"))


def test_a_fate_is_what_is_known_of_it_now_and_a_checkpoint_keeps_it():
    rows, again = table(), table()
    work = Tasks(np.arange(3), np.zeros(3), np.array([10.0, 20.0, 500.0]), np.zeros(3))
    state, report = play(start(BOARDS), work, 1, BOARDS, always(3), ASYNC)
    rows.enter(report, set(state.pending.device.tolist()))
    assert rows.frame(state.pending)["fate"].tolist() == ["in", "late", "late"]
    again.load(rows.dumped())
    for _ in range(2):  # device 1 arrives; device 2 is given up
        state, report = play(state, NOBODY, 1, BOARDS, always(3), ASYNC)
        for each in (rows, again):
            each.enter(report, set(state.pending.device.tolist()))
    found = rows.frame(state.pending)
    assert found["fate"].tolist() == ["in", "in", "late"]
    assert found["finish"].tolist() == [10.0, 20.0, math.inf]
    assert found["compression"].tolist() == ["nf4", "none", "none"]
    pd.testing.assert_frame_equal(again.frame(state.pending), found)
    assert again.digest() == rows.digest() != table().digest()
