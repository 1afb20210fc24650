"""SIGKILL at any moment, and the run ends with the same bits."""

from __future__ import annotations

import pytest

from experiments.controls.kill_and_resume import HEADER, Kill, kill_and_resume, row


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_killed_at_twenty_random_moments_end_as_one_that_was_left_alone(tmp_path):
    kills = kill_and_resume(tmp_path, 20)
    print("\n".join([HEADER, *map(row, kills)]))  # noqa: T201
    assert len(kills) == 20
    assert [kill for kill in kills if kill.differs] == []
    assert sum(kill.used is not None for kill in kills) >= 5  # the others: before or after the rounds
    assert any(kill.reached is None for kill in kills)  # in start-up


def test_the_log_says_what_happened():
    assert row(Kill(1.5, None, None, ())).split() == ["1.50", "not", "begun", "-", "equal"]
    assert row(Kill(9.0, 3, 2, ("rounds", "metrics"))).split() == ["9.00", "3", "2", "rounds,", "metrics"]
