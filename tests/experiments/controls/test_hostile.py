"""Every method of the registry among devices that lie: the run goes on as if the liars were silent.

The lies know no method, and no method has code here. `python -m experiments.controls.hostile` tells a million
of them.
"""

from __future__ import annotations

import pytest

from experiments.controls.hostile import HONEST, in_a_process, play
from strategies.method import names

LIARS = 5
ROUNDS = 3
SPACE = 12 << 30  # bytes of address space, of which torch maps much and uses little
METHODS = [m if m in ("cdc", "fedavg_lora") else pytest.param(m, marks=pytest.mark.slow) for m in names()]
MEMORY = 1.5  # times the peak of a run with silent liars


@pytest.fixture
def settings(run_settings, tmp_path):
    """`settings(method, how)`: two honest devices and five liars, three rounds."""

    def make(method: str, how: str, **more) -> dict:
        own = {"method": method, "devices": HONEST + LIARS, "rounds": ROUNDS, "eval_every": ROUNDS}
        return {**run_settings(**own, **more), "run.out-dir": str(tmp_path / how)}

    return make


@pytest.mark.parametrize("method", METHODS)
def test_what_nobody_may_say_changes_nothing(method, settings):
    silent, lied = (play(settings(method, how), how, seed=0) for how in ("silent", "refused"))
    assert lied["status"] == "completed"
    assert sum(lied["told"].values()) == 2 * LIARS * ROUNDS
    assert set(lied["statuses"]) <= {"refused", "failed", "missing"}
    assert lied["statuses"]["refused"] > 0
    assert lied["honest"] == silent["honest"]
    assert set(lied["honest"]["status"]) == {"ok"}
    assert lied["adapter"] == silent["adapter"]


@pytest.mark.parametrize("method", METHODS)
def test_no_lie_at_all_ends_a_run(method, settings):
    found = play(settings(method, "all"), "all", names().index(method), query=True)
    assert found["status"] == "completed"
    assert len(found["honest"]["round"]) == HONEST * ROUNDS
    assert set(found["honest"]["status"]) == {"ok"}


@pytest.mark.slow
def test_lies_cost_no_memory(settings):
    """In processes of their own: the peak is that of a whole process."""
    peaks = {how: in_a_process(settings("cdc", how), how, 0, SPACE)["peak"] for how in ("silent", "all")}
    assert peaks["all"] < MEMORY * peaks["silent"], peaks
