import sys

import pytest

from experiments.bench import plan
from experiments.run.plan import Engine

HOLD = "x = b'1' * 80_000_000; print('ready', flush=True); input()"
ALL_AT_ONCE = f"""
import subprocess, sys, time
command = [sys.executable, '-c', {HOLD!r}]
held = [subprocess.Popen(command, stdin=-1, stdout=-1) for _ in range(int(sys.argv[1]))]
[one.stdout.readline() for one in held]
time.sleep(1)
[one.communicate(b'end') for one in held]
"""


def test_the_memory_of_a_command_and_its_children_is_measured_at_its_peak(tmp_path):
    one = plan.measured([sys.executable, "-c", ALL_AT_ONCE, "1"], tmp_path / "a.log")
    two = plan.measured([sys.executable, "-c", ALL_AT_ONCE, "2"], tmp_path / "b.log")
    assert 80e6 < one.anonymous < 160e6
    assert 80e6 < two.anonymous - one.anonymous < 120e6
    assert 0 < two.mapped < 1.5 * one.mapped  # files are shared


def test_a_command_that_fails_is_no_measurement(tmp_path):
    with pytest.raises(RuntimeError, match="no such thing"):
        plan.measured([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path / "a.log")


def test_cases_can_be_planned(tmp_path):
    pair = plan.write_pair(tmp_path / "pair", hidden=64, layers=2)
    found = {case.name: plan.planned(case, pair) for case in plan.CASES}
    assert len(found) >= 6
    assert {case.engine for case in plan.CASES} <= {"compare", "local"}
    assert all(made.ram > 500e6 for made in found.values())
    (two,) = [c for c in plan.CASES if c.workers == 2 and not c.large]
    assert sum(p.count for p in found[two.name].processes) == 3
    assert Engine("compare", 2) == Engine(two.engine, two.workers)
